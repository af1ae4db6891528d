"""`upper_layer = "blocking"`: an association served by one thread, which sleeps until there is work."""

import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import cast

from pynetdicom import evt

from scp.settings.tls import subject
from scp.upperlayer.dimse import Messages
from scp.upperlayer.dispatch import Clerk
from scp.upperlayer.dul import ConnectionSocket, UpperLayer
from scp.upperlayer.message_assembler import Operation
from scp.upperlayer.served import Desk, ServedAssociation
from scp.wire.associate_rq import AssociateRequest, Titles
from scp.wire.command_set import Command
from scp.wire.connection import Closed, Cut, Late, Wire
from scp.wire.pdus import command_pdus

# How long a peer may take to close after release, rejection or abort, in seconds (ARTIM, PS3.8 9.1.5).
GOODBYE = 2.0
# The same while the daemon stops.
HASTY_GOODBYE = 0.5

Work = Callable[["BlockingAssociation"], None]


class BlockingAssociation(ServedAssociation):
    """An association served by one thread that sleeps until its peer, or somebody here, wants something.

    `received` is what has been read of the connection already.
    """

    def __init__(
        self,
        desk: Desk,
        connection: socket.socket,
        on_over: Callable[[ServedAssociation], None],
        received: bytes = b"",
    ) -> None:
        self._received = received
        self._winding_down = False
        self._work: deque[Work] = deque()
        super().__init__(desk, connection, on_over)

    def _provide(self) -> None:
        self.wire = Wire(self.connection, self._received)
        self.dul: UpperLayer = UpperLayer(self)
        self.dimse: Messages = Messages(self, self.dul.pump, self.dul.pump_what_is_there)
        self.set_socket(ConnectionSocket(self, client_socket=self.connection))

    def post(self, work: Work) -> None:
        """Have `work` done by the association's thread, between operations. Called from any thread."""
        self._work.append(work)
        self.wire.wake()

    def wind_down(self) -> None:
        """Abort as soon as no operation is running; without an association there is none."""
        if not self._winding_down:
            self._winding_down = True
            self.wire.wake()
        if not self.is_established:
            self.wire.cut()

    def cut(self) -> None:
        """Abort as soon as the thread waits for its peer."""
        self.wire.cut()

    def begin(self, context_id: int, command: Command) -> Operation:
        """Decide what a command asks for. Raises Disorder for responses that nobody waits for."""
        proposed_id = self.associate_rq.proposed_id(context_id)

        def reply(encoded: bytes) -> None:
            cast("ConnectionSocket", self.dul.socket).send(
                command_pdus(proposed_id, encoded, self.dimse.maximum_pdu_size)
            )

        def deliver(data: bytes) -> None:
            self.dimse.deliver(context_id, command, data)

        clerk = Clerk(self.desk.store, self.session, self.desk.admission.services, reply, deliver)
        return clerk.begin(self._accepted_cx[context_id], command)

    @property
    def associate_rq(self) -> AssociateRequest:
        """The association request. Raises ValueError before it has been read."""
        if self.dul.request is None:
            raise ValueError("no association request has been read yet")
        return self.dul.request

    @property
    def titles(self) -> Titles:
        """See ServedAssociation."""
        return self.associate_rq.titles

    def _run_reactor(self) -> None:
        """Serve until the association is over. Stands for pynetdicom's loop, which polls."""
        while self.is_established and not self._kill:
            # Nobody else reads: requests of our own need not wait for this loop to pause.
            self._is_paused = True
            self._step()
        self._conclude()

    def _step(self) -> None:
        context_id, message = self.dimse.get_msg(block=False)
        if message is not None:
            self._serve_request(message, context_id)
        elif self.dul.peek_next_pdu() is not None:
            self._conclude()
        elif self._winding_down and self.dul.inbox.is_idle:
            self.session.ending("aborted", "shutdown")
            self.abort()
        elif self._work and self.dul.inbox.is_idle:
            self._work.popleft()(self)
        elif not self.dul.pump(monotonic() + self.desk.dicom.timeouts.idle):
            self.session.ending("aborted", "idle for too long")
            self.abort()

    def _conclude(self) -> None:
        """Answer a release, note an abort."""
        if self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            evt.trigger(self, evt.EVT_RELEASED, {})
        elif self.acse.is_aborted():
            self.dul.receive_pdu()
            self.session.ending("aborted", "by the peer")
            self.is_aborted = True
            self.is_established = False
            evt.trigger(self, evt.EVT_ABORTED, {})
        self.kill()

    def _abort_blocking(self, block: bool = True) -> None:  # noqa: FBT001, FBT002
        """Send A-ABORT. pynetdicom's own then sleeps."""
        super()._abort_blocking(block=False)
        if block:
            self.kill()

    def _secure(self) -> bool:
        if self.desk.ssl_context is None:
            return True
        try:
            deadline = monotonic() + self.desk.dicom.timeouts.request
            secured = self.wire.secure(self.desk.ssl_context, deadline)
        except Late:
            return self.not_secured("no TLS handshake in time")
        except (Closed, Cut) as error:
            return self.not_secured(str(error) or "shutdown")
        self.session.secured(secured.version(), subject(secured.getpeercert()))
        return True

    def _finish(self) -> None:
        self.dul.inbox.discard(self.session.reason or "the association has ended")
        super()._finish()

    def hang_up(self) -> None:
        """Close the connection; after a goodbye of ours (Sta13) the peer may do so first."""
        if self.dul.state_machine.current_state == "Sta13":
            self.wire.hang_up(HASTY_GOODBYE if self._winding_down else GOODBYE)
        self.wire.close()
