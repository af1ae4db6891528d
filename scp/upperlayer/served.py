"""What both upper layers have in common: an association that we accepted, admitted by our rules."""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Any, cast

from pynetdicom import _config, evt
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import Event, EventType
from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation
from pynetdicom.transport import AddressInformation

from index import IMPLEMENTATION_CLASS_UID
from scp.association.admission import STRANGER, Admission, Grant, Places, Rejection, plain_address
from scp.association.contexts import is_storage, supported
from scp.observing.association_info import Link
from scp.observing.association_record import Session
from scp.observing.metrics import Metrics
from scp.services.store import StoreService
from scp.settings.sections import DicomSettings
from scp.wire.associate_rq import Titles
from scp.wire.status import SUCCESS

# PS3.7 Annex D.3.3.2.
IMPLEMENTATION_VERSION_NAME = "IMAGINGSTUDYD"

# PS3.8 Table 9-18, result/reason of a presentation context.
USER_REJECTION = 0x01
ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x03

# PS3.4 C.4.3: with C-GET the caller is SCP of storage on its own association.
RETRIEVE = "retrieve"

Handler = tuple[EventType, Callable[[Event], Any]]

# pynetdicom's own descriptions of each PDU and message would cost more than receiving them.
_config.LOG_HANDLER_LEVEL = "none"


@dataclass(frozen=True, slots=True)
class Desk:
    """All that an association needs of the daemon; replaced as a whole when the configuration changes."""

    dicom: DicomSettings
    admission: Admission
    store: StoreService
    handlers: Sequence[Handler]
    ae: ApplicationEntity
    on_association_end: Callable[[Link], None] | None
    metrics: Metrics
    ssl_context: ssl.SSLContext | None = None
    places: Places = field(default_factory=Places)


def application_entity(dicom: DicomSettings) -> ApplicationEntity:
    """Return pynetdicom's application entity with our titles and deadlines."""
    ae = ApplicationEntity(dicom.aet)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = dicom.max_pdu
    ae.maximum_associations = 2**31  # the listener counts
    ae.acse_timeout = dicom.timeouts.request
    ae.dimse_timeout = dicom.timeouts.pdu
    ae.network_timeout = dicom.timeouts.idle
    return ae


def session_of(event: Event) -> Session:
    """Return the session of the association in which a pynetdicom event happened."""
    return cast("ServedAssociation", event.assoc).session


def link_of(event: Event) -> Link:
    """Return who we talk with, for handlers of pynetdicom events. Raises ValueError before the request."""
    return session_of(event).known_link


def request_of(assoc: Association) -> A_ASSOCIATE:
    """Return the A-ASSOCIATE request of an association that was requested."""
    return cast("A_ASSOCIATE", assoc.requestor.primitive)


class _Control(ACSE):
    """ACSE that says of contexts which the caller may not use that it is our choice (user-rejection)."""

    def send_accept(self) -> None:
        assoc = cast("ServedAssociation", self.assoc)
        for context in self.assoc.rejected_contexts:
            abstract = str(context.abstract_syntax)
            if context.result == ABSTRACT_SYNTAX_NOT_SUPPORTED and assoc.withholds(abstract):
                context.result = USER_REJECTION
        if assoc.desk.dicom.users and (user := self.requestor.user_identity):
            self._confirm(user)
        super().send_accept()

    def _confirm(self, user: UserIdentityNegotiation) -> None:
        """Say that the user has been verified, where that was asked for (PS3.7 Section D.3.3.7.2)."""
        if user.positive_response_requested:
            answer = UserIdentityNegotiation()
            answer.server_response = b""
            self.acceptor.add_negotiation_item(answer)


class ServedAssociation(Association):
    """An association that a peer requested on `connection`. Its thread ends with it."""

    def __init__(
        self, desk: Desk, connection: socket.socket, on_over: Callable[["ServedAssociation"], None]
    ) -> None:
        super().__init__(desk.ae, "acceptor")
        self.desk = desk
        self.connection = connection
        self.grant: Grant | None = None
        self._place: str | None = None
        self._on_over = on_over
        peer = connection.getpeername()
        self.session = Session(plain_address(peer[0]))
        self.name = f"association-{self.session.id}"
        self.acse = _Control(self)
        self.acceptor.ae_title = desk.dicom.aet
        self.acceptor.maximum_length = desk.dicom.max_pdu
        self.acceptor.implementation_class_uid = desk.ae.implementation_class_uid
        self.acceptor.implementation_version_name = desk.ae.implementation_version_name
        self.acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
        self.requestor.address_info = AddressInformation.from_tuple(peer)
        self.bind(evt.EVT_REQUESTED, _admit)
        self.bind(evt.EVT_ESTABLISHED, _established)
        self.bind(evt.EVT_C_ECHO, _echo)
        for event, handler in desk.handlers:
            self.bind(event, handler)
        self._provide()

    def run(self) -> None:
        """Serve the association to its end, and leave nothing behind."""
        try:
            if self._secure():
                super().run()
        except Exception as error:
            # Whatever pynetdicom raises ends this association only.
            self.session.ending("aborted", f"{type(error).__name__}: {error}")
            self.session.log.exception("association_failed")
        finally:
            self._finish()

    @property
    def titles(self) -> Titles:
        """Who calls whom, by the association request."""
        request = request_of(self)
        return Titles(request.calling_ae_title.strip(), request.called_ae_title.strip())

    def admit(self, grant: Grant) -> bool:
        """Take what the caller has been granted; return whether there was a place left for it."""
        place = self.session.known_link.calling_aet if grant.known else STRANGER
        if grant.associations:
            if not self.desk.places.take(place, grant.associations):
                return False
            self._place = place
        self.grant = grant
        self.session.admitted(grant.object_size)
        return True

    @property
    def is_known(self) -> bool:
        """Tell whether the caller has turned out to be one of [[peers]]."""
        return self.grant is not None and self.grant.known

    @property
    def silence(self) -> float:
        """For how many seconds nobody has said who is calling; 0 when it is said, infinite at the end."""
        if self.session.is_ending:
            return inf
        return 0.0 if self.session.link else perf_counter() - self.session.started

    def withholds(self, abstract_syntax: str) -> bool:
        """Tell whether we serve this abstract syntax, but not to this caller."""
        if self.grant is None or abstract_syntax in self.grant.services:
            return False
        return abstract_syntax in self.desk.admission.services or (
            not self.grant.store and is_storage(abstract_syntax)
        )

    def wind_down(self) -> None:
        """End the association when no operation is running. Called from any thread, any number of times."""
        raise NotImplementedError

    def cut(self) -> None:
        """Abort the association, whatever is running. Called from any thread, any number of times."""
        raise NotImplementedError

    def post(self, work: "Callable[[Any], None]") -> None:
        """Have `work` done with this association, between operations. Called from any thread."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Close the connection, letting what was said last arrive."""
        raise NotImplementedError

    def _provide(self) -> None:
        """Set up the service providers that are not pynetdicom's own, and the socket."""
        raise NotImplementedError

    def _secure(self) -> bool:
        """Shake hands for TLS where it is wanted, in the association's thread; return whether all is well."""
        return True

    def not_secured(self, why: str) -> bool:
        """Note that there was no TLS handshake; return False, for `_secure`."""
        self.session.ending("aborted", f"TLS: {why}")
        self.session.log.warning("tls_failed", why=why)
        return False

    def _finish(self) -> None:
        self.session.ending("released" if self.is_released else "rejected" if self.is_rejected else "aborted")
        self.session.over()
        try:
            if self.session.accepted and self.session.link and self.desk.on_association_end:
                self.desk.on_association_end(self.session.link)
        except Exception:
            self.session.log.exception("association_end_failed")
        finally:
            if self._place is not None:
                self.desk.places.free(self._place)
            self.hang_up()
            self._on_over(self)


def _admit(event: Event) -> None:
    """Decide on an A-ASSOCIATE-RQ; what fails here leaves no context supported."""
    assoc = cast("ServedAssociation", event.assoc)
    request = request_of(assoc)
    calling, called = assoc.titles
    assoc.session.requested(calling, called)
    user = assoc.requestor.user_identity
    verdict = assoc.desk.admission.decide(calling, called, assoc.session.address, user)
    if isinstance(verdict, Rejection):
        reject(assoc, verdict)
        return
    if not assoc.admit(verdict):
        reject(assoc, Rejection.LOCAL_LIMIT)
        return
    proposed = request.presentation_context_definition_list
    retrieve = RETRIEVE in verdict.services.values()
    assoc.acceptor.supported_contexts = supported(
        proposed, verdict.services, retrieve=retrieve, store=verdict.store, order=verdict.syntaxes
    )
    _log_unserved(assoc)


def reject(assoc: ServedAssociation, rejection: Rejection) -> None:
    """Answer A-ASSOCIATE-RJ with the given reason."""
    assoc.session.ending("rejected", rejection.name.lower())
    assoc.desk.metrics.association_refused(rejection.name.lower())
    assoc.acse.send_reject(*rejection.value)


def _log_unserved(assoc: ServedAssociation) -> None:
    """Say once which services the caller asked for and may not use."""
    services = assoc.desk.admission.services
    refused = {
        services.get(abstract, "store")
        for context in request_of(assoc).presentation_context_definition_list
        if assoc.withholds(abstract := str(context.abstract_syntax))
    }
    if refused:
        known = assoc.grant is not None and assoc.grant.known
        why = "not among the peer's services" if known else "no entry in [[peers]]"
        assoc.session.log.warning("services_refused", services=sorted(refused), why=why)


def _established(event: Event) -> None:
    assoc = cast("ServedAssociation", event.assoc)
    assoc.session.established(len(assoc.accepted_contexts), len(assoc.rejected_contexts))


def _echo(event: Event) -> int:
    session = session_of(event)
    session.did("echoes")
    session.log.info("echo")
    cast("ServedAssociation", event.assoc).desk.metrics.operated("echo", f"{SUCCESS:04X}")
    return SUCCESS
