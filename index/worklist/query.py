"""One worklist query against the index: rows chosen by SQL, matched by rule, answered one by one."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.dataset import Dataset

from index.dicom.value_rules import texts, valid_values
from index.orders.records import Candidate
from index.orders.service import Orders
from index.orders.settings import WorklistSettings
from index.query.keys import SCHEDULED_STEPS
from index.query.matching import groups
from index.records import Attributes
from index.worklist.identifiers import Tree, answer, tree_of, unsupported
from index.worklist.matching import Wanted, days, exactly

_STATION = "ScheduledStationAETitle"
# By key: how Candidates calls it. Those of the step stand in its sequence.
_EXACT = {
    "PatientID": "patient_id",
    "AccessionNumber": "accession",
    "StudyInstanceUID": "study_uid",
    "RequestedProcedureID": "procedure_id",
    "PlacerOrderNumberImagingServiceRequest": "placer",
    "FillerOrderNumberImagingServiceRequest": "filler",
}
_EXACT_OF_STEP = {
    _STATION: "station",
    "Modality": "modality",
    "ScheduledProcedureStepID": "step_id",
    "ScheduledProcedureStepStatus": "status",
}


class Query:
    """What a peer asks of the worklist. Iterating gives the answers, the nearest in time first.

    `unsupported` names the keys that were passed over. `is_cut_short` says, after the last answer, whether
    anything was cut off: there are more matches than the limit, or more steps than one query looks at.
    Raises BadIdentifier.
    """

    def __init__(
        self,
        orders: Orders,
        settings: WorklistSettings,
        identifier: Dataset,
        caller: str,
        charset: str | None,
        *,
        ignore_accents: bool = False,
    ) -> None:
        self._orders = orders
        self._settings = settings
        self._caller = caller
        self._charset = charset
        self._tree = tree_of(identifier)
        self._wanted = Wanted(self._tree, ignore_accents=ignore_accents)
        self._hints = hints(self._tree, ignore_accents=ignore_accents)
        self.unsupported = tuple(unsupported(self._tree))
        self.is_cut_short = False

    def __iter__(self) -> Iterator[Dataset]:
        """Yield the answers."""
        count = 0
        chosen = self._orders.chosen(**self._hints, **self._since())
        for candidate in chosen:
            item = self._item(candidate)
            if not self._wanted.fits(item):
                continue
            if count == self._settings.limit:
                self.is_cut_short = True
                return
            count += 1
            yield answer(self._tree, item, self._charset or candidate.charset)
        self.is_cut_short = chosen.is_cut_short

    def _since(self) -> dict[str, str]:
        """Return the first day whose steps have not left the worklist, where there is one."""
        if self._settings.expire_days is None:
            return {}
        today = dt.datetime.now().astimezone().date()
        return {"since": (today - dt.timedelta(days=self._settings.expire_days)).strftime("%Y%m%d")}

    def _item(self, candidate: Candidate) -> Attributes:
        """Return a candidate's attributes; a step for any station becomes the caller's where configured."""
        attributes = candidate.attributes
        (step,) = attributes[SCHEDULED_STEPS]
        if self._settings.fill_station and not valid_values(_STATION, step.get(_STATION)):
            return {**attributes, SCHEDULED_STEPS: [{**step, _STATION: self._caller}]}
        return attributes


def hints(tree: Tree, *, ignore_accents: bool = False) -> Mapping[str, Any]:
    """Return what SQL can choose by: the keys that ask for one exact value, days, and a part of the name.

    SQL knows names with their accents only.
    Only steps that are still scheduled, unless a query asks by ScheduledProcedureStepStatus.
    """
    steps = tree.get(SCHEDULED_STEPS)
    step = steps[0] if isinstance(steps, list) and steps else {}
    found: dict[str, Any] = {
        **{name: exactly(tree, keyword) for keyword, name in _EXACT.items()},
        **{name: exactly(step, keyword) for keyword, name in _EXACT_OF_STEP.items()},
        "dates": days(step),
        "name": None if ignore_accents else _name_part(tree),
        "scheduled_only": not texts(step.get("ScheduledProcedureStepStatus")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _name_part(tree: Tree) -> str | None:
    """Return the longest piece of PatientName that stands in every name which matches."""
    names = texts(tree.get("PatientName"))
    if len(names) != 1:
        return None
    pieces = "".join(c if c.isalnum() and c.isascii() else " " for c in groups(names[0])[0]).split()
    return max(pieces, key=len, default=None)
