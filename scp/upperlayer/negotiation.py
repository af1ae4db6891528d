"""The acceptor's side of the association negotiation (PS3.7 Annex D): admitted by our rules."""

from typing import cast

from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation

from scp.association.admission import Grant, Rejection
from scp.association.contexts import is_storage, supported
from scp.association.quota import STRANGER
from scp.observing.association_record import AssociationRecord
from scp.upperlayer.context import ListenerContext

# PS3.8 Table 9-18, result/reason of a presentation context.
USER_REJECTION = 0x01
ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x03

# PS3.4 C.4.3: with C-GET the caller is SCP of storage on its own association.
RETRIEVE = "retrieve"


class Negotiation(ACSE):
    """pynetdicom's ACSE for one association that a peer requested, with what the caller has been granted."""

    def __init__(self, assoc: Association, context: ListenerContext, record: AssociationRecord) -> None:
        super().__init__(assoc)
        self._context = context
        self._record = record
        self._grant: Grant | None = None
        self._counted_as: str | None = None

    @property
    def is_known(self) -> bool:
        """Tell whether the caller has turned out to be one of [[peers]]."""
        return self._grant is not None and self._grant.known

    def on_requested(self, _event: Event) -> None:
        """Decide on an A-ASSOCIATE-RQ; what fails here leaves no presentation context supported."""
        info = self._record.info
        decision = self._context.admission.decide(
            info.calling_aet, info.called_aet, info.address, self.requestor.user_identity
        )
        if isinstance(decision, Rejection):
            self._reject(decision)
        elif not self._admit(decision):
            self._reject(Rejection.LOCAL_LIMIT)
        else:
            self.acceptor.supported_contexts = supported(
                self._request.presentation_context_definition_list,
                decision.services,
                retrieve=RETRIEVE in decision.services.values(),
                store=decision.store,
                order=decision.syntaxes,
            )
            self._log_withheld(decision)

    def on_established(self, _event: Event) -> None:
        """Note that the association has been accepted."""
        self._record.established(len(self.assoc.accepted_contexts), len(self.assoc.rejected_contexts))

    def send_accept(self) -> None:
        """Accept; contexts that this caller may not use are refused as our choice: user-rejection."""
        for context in self.assoc.rejected_contexts:
            is_unsupported = context.result == ABSTRACT_SYNTAX_NOT_SUPPORTED
            if is_unsupported and self._withholds(str(context.abstract_syntax)):
                context.result = USER_REJECTION
        if self._context.dicom.users and (user := self.requestor.user_identity):
            self._confirm(user)
        super().send_accept()

    def end(self) -> None:
        """The association is over: it counts no more."""
        if self._counted_as is not None:
            self._context.quota.free(self._counted_as)

    @property
    def _request(self) -> A_ASSOCIATE:
        return cast("A_ASSOCIATE", self.requestor.primitive)

    def _admit(self, grant: Grant) -> bool:
        """Take what the caller has been granted; return whether it may have one more association."""
        counted_as = self._record.info.calling_aet if grant.known else STRANGER
        if grant.associations:
            if not self._context.quota.take(counted_as, grant.associations):
                return False
            self._counted_as = counted_as
        self._grant = grant
        self._record.admitted(grant.object_size)
        return True

    def _reject(self, rejection: Rejection) -> None:
        """Answer A-ASSOCIATE-RJ with the given reason."""
        self._record.ending("rejected", rejection.name.lower())
        self._context.metrics.association_refused(rejection.name.lower())
        self.send_reject(*rejection.value)

    def _confirm(self, user: UserIdentityNegotiation) -> None:
        """Say that the user has been verified, where that was asked for (PS3.7 Section D.3.3.7.2)."""
        if user.positive_response_requested:
            answer = UserIdentityNegotiation()
            answer.server_response = b""
            self.acceptor.add_negotiation_item(answer)

    def _withholds(self, abstract_syntax: str) -> bool:
        """Tell whether we serve this abstract syntax, but not to this caller."""
        if self._grant is None or abstract_syntax in self._grant.services:
            return False
        return abstract_syntax in self._context.admission.services or (
            not self._grant.store and is_storage(abstract_syntax)
        )

    def _log_withheld(self, grant: Grant) -> None:
        """Say once which services the caller asked for and may not use."""
        services = self._context.admission.services
        refused = {
            services.get(abstract, "store")
            for context in self._request.presentation_context_definition_list
            if self._withholds(abstract := str(context.abstract_syntax))
        }
        if refused:
            why = "not among the peer's services" if grant.known else "no entry in [[peers]]"
            self._record.log.warning("services_refused", services=sorted(refused), why=why)
