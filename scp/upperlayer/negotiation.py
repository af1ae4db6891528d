"""The acceptor's side of the association negotiation (PS3.7 Annex D), by the rules of the configuration."""

from typing import cast

from pydicom.uid import UID
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    UserIdentityNegotiation,
)

from scp.association.admission import Grant, Rejection
from scp.association.contexts import is_storage, supported_contexts
from scp.association.extended_negotiation import agreed
from scp.association.quota import UNKNOWN_CALLER
from scp.observing.association_record import AssociationRecord
from scp.services.store import MAX_OPERATIONS
from scp.upperlayer.context import ListenerContext

# PS3.8 Table 9-18, result/reason of a presentation context.
USER_REJECTION = 0x01
ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x03

# PS3.4 C.4.3: with C-GET the caller is SCP of storage on its own association.
RETRIEVE = "retrieve"


class Negotiation(ACSE):
    """pynetdicom's ACSE for one association that a peer requested."""

    def __init__(self, assoc: Association, context: ListenerContext, record: AssociationRecord) -> None:
        super().__init__(assoc)
        self._context = context
        self._record = record
        self._grant: Grant | None = None
        self._counted_as: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether the caller has been admitted as one of [[peers]]."""
        return self._grant is not None and self._grant.is_known

    def on_requested(self, _event: Event) -> None:
        """Decide on an A-ASSOCIATE-RQ. An exception leaves no presentation context supported."""
        info = self._record.info
        decision = self._context.admission.decide(
            info.calling_aet, info.called_aet, info.address, self.requestor.user_identity
        )
        if isinstance(decision, Rejection):
            self._reject(decision)
        elif not self._admit(decision):
            self._reject(Rejection.LOCAL_LIMIT)
        else:
            self.acceptor.supported_contexts = supported_contexts(
                self._request.presentation_context_definition_list,
                decision.services,
                retrieve=RETRIEVE in decision.services.values(),
                store=decision.store,
                receives=self._received(),
                order=decision.syntaxes,
            )
            self._log_withheld(decision)

    def on_established(self, _event: Event) -> None:
        """Log that the association has been accepted."""
        self._record.log_accepted(len(self.assoc.accepted_contexts), len(self.assoc.rejected_contexts))

    def on_extended(self, event: Event) -> dict[UID, bytes]:
        """Answer the extended negotiation of the SOP Classes that the caller may use."""
        return agreed(
            event.app_info,  # type: ignore[attr-defined]  # set by pynetdicom for this event
            self._grant.services if self._grant else {},
        )

    def send_accept(self) -> None:
        """Accept. Contexts that we serve, but not to this caller, are refused as user-rejection."""
        for context in self.assoc.rejected_contexts:
            is_unsupported = context.result == ABSTRACT_SYNTAX_NOT_SUPPORTED
            if is_unsupported and self._withholds(str(context.abstract_syntax)):
                context.result = USER_REJECTION
        if self._context.dicom.users and (user := self.requestor.user_identity):
            self._confirm(user)
        super().send_accept()

    def _check_async_ops(self) -> AsynchronousOperationsWindowNegotiation:
        """Return how many operations we let the caller invoke at one time (PS3.7 Section D.3.3.3).

        The caller needs to perform only one: we invoke no other before its response.
        """
        proposed = self.requestor.asynchronous_operations[0]
        granted = AsynchronousOperationsWindowNegotiation()
        granted.maximum_number_operations_invoked = min(proposed or MAX_OPERATIONS, MAX_OPERATIONS)
        granted.maximum_number_operations_performed = 1
        return granted

    def end(self) -> None:
        """Count the association no more."""
        if self._counted_as is not None:
            self._context.quota.free(self._counted_as)

    @property
    def _request(self) -> A_ASSOCIATE:
        return cast("A_ASSOCIATE", self.requestor.primitive)

    def _admit(self, grant: Grant) -> bool:
        """Store the grant; return whether the caller may have one more association."""
        counted_as = self._record.info.calling_aet if grant.is_known else UNKNOWN_CALLER
        if grant.associations:
            if not self._context.quota.take(counted_as, grant.associations):
                return False
            self._counted_as = counted_as
        self._grant = grant
        self._record.set_object_size(grant.object_size)
        return True

    def _reject(self, rejection: Rejection) -> None:
        """Send A-ASSOCIATE-RJ."""
        self._record.set_outcome("rejected", rejection.name.lower())
        info = self._record.info
        self._context.metrics.association_refused(rejection.name.lower(), info.calling_aet, info.address)
        self.send_reject(*rejection.value)

    def _confirm(self, user: UserIdentityNegotiation) -> None:
        """Confirm the user identity where the caller asks for that (PS3.7 Section D.3.3.7.2)."""
        if user.positive_response_requested:
            answer = UserIdentityNegotiation()
            answer.server_response = b""
            self.acceptor.add_negotiation_item(answer)

    def _withholds(self, abstract_syntax: str) -> bool:
        """Whether we serve this abstract syntax, but not to this caller."""
        if self._grant is None or abstract_syntax in self._grant.services:
            return False
        return abstract_syntax in self._context.admission.services or (
            not self._grant.store and is_storage(abstract_syntax) and not self._may_receive(abstract_syntax)
        )

    def _received(self) -> set[str]:
        """Return the SOP Classes for which the caller proposes to be SCP (PS3.7 Section D.3.3.4)."""
        roles = self.requestor.role_selection
        return {str(uid) for uid, role in roles.items() if role.scp_role}

    def _may_receive(self, abstract_syntax: str) -> bool:
        retrieves = self._grant is not None and RETRIEVE in self._grant.services.values()
        return retrieves and abstract_syntax in self._received()

    def _log_withheld(self, grant: Grant) -> None:
        """Log which services the caller proposed and may not use."""
        services = self._context.admission.services
        refused = {
            services.get(abstract, "store")
            for context in self._request.presentation_context_definition_list
            if self._withholds(abstract := str(context.abstract_syntax))
        }
        if refused:
            why = "not among the peer's services" if grant.is_known else "no entry in [[peers]]"
            self._record.log.warning("services_refused", services=sorted(refused), why=why)
            info, named = self._record.info, ", ".join(sorted(refused))
            self._context.metrics.recent.refused("service", f"{named}: {why}", info.calling_aet, info.address)
