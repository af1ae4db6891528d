"""What came over one association, or in one request, by study: for the audit trail."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from index.reception.arrival import Outcome
from index.reception.instance import Kept

# Instances whose outcome is not known yet: they are indexed within some 20 ms.
_PENDING = 100


@dataclass(slots=True)
class ReceivedStudy:
    """A study of which instances came. `classes`: how many of each SOP Class UID; `outcomes`: of each."""

    uid: str
    patient_id: str
    accession: str
    classes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    pending: deque[Kept] = field(default_factory=deque)

    def add(self, kept: Kept) -> None:
        """Count an instance."""
        self.classes[kept.header.sop_class_uid] += 1
        self.pending.append(kept)
        while self.pending and (self.pending[0].outcome or len(self.pending) > _PENDING):
            self._settle()

    def _settle(self) -> None:
        self.outcomes[self.pending.popleft().outcome or Outcome.STORED] += 1

    def settled(self) -> Counter[Outcome]:
        """Return what became of the instances. One that is not indexed yet counts as new."""
        while self.pending:
            self._settle()
        return self.outcomes


class Received:
    """The studies of which instances came. Used by one thread at a time."""

    MOST = 100
    """Studies: of more, the first are to be taken out."""

    def __init__(self) -> None:
        self._studies: dict[str, ReceivedStudy] = {}

    def add(self, kept: Kept) -> None:
        """Count an instance that is kept."""
        header = kept.header
        study = self._studies.get(header.study_uid)
        if study is None:
            patient, accession = header.patient.get("PatientID"), header.study.get("AccessionNumber")
            study = ReceivedStudy(header.study_uid, str(patient or ""), str(accession or ""))
            self._studies[header.study_uid] = study
        study.add(kept)

    @property
    def is_full(self) -> bool:
        """Whether the studies are to be taken out before the end."""
        return len(self._studies) >= self.MOST

    def take(self) -> Iterator[ReceivedStudy]:
        """Yield the studies, and forget them."""
        studies, self._studies = self._studies, {}
        yield from studies.values()
