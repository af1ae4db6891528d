"""One worklist query: items selected by SQL, matched exactly, and answered one by one."""

import datetime as dt
from collections.abc import Iterator

from pydicom.dataset import Dataset

from index.database.connection import Database
from index.dicom.value_rules import valid_values
from index.orders.settings import WorklistSettings
from index.query.identifier_matching import IdentifierMatcher
from index.query.identifiers import answer, read_identifier, unsupported
from index.query.worklist_keys import KEYS, SCHEDULED_STEPS
from index.records import Attributes
from index.worklist.selection import Selection

_STATION = "ScheduledStationAETitle"
# Matched as one period (PS3.4 Table K.6-1).
START = ("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime")


class WorklistQuery:
    """A caller's query. Iterating gives the answers, those next in time first.

    `unsupported` names the keys that are not matched. After the last answer, `is_cut_short` tells whether
    some are missing: there are more matches than the limit, or more steps than one query reads.
    Raises BadIdentifier.
    """

    def __init__(
        self,
        database: Database,
        settings: WorklistSettings,
        identifier: Dataset,
        caller: str,
        charset: str | None,
        *,
        ignore_accents: bool = False,
    ) -> None:
        self._settings = settings
        self._caller = caller
        self._charset = charset
        self._identifier = read_identifier(identifier)
        self._matcher = IdentifierMatcher(self._identifier, KEYS, START, ignore_accents=ignore_accents)
        self._selection = Selection(database, self._identifier, self._since(), ignore_accents=ignore_accents)
        self.unsupported = tuple(unsupported(self._identifier, KEYS))
        self.is_cut_short = False

    def __iter__(self) -> Iterator[Dataset]:
        """Yield the answers."""
        count = 0
        for item in self._selection:
            attributes = self._with_station(item.attributes)
            if not self._matcher.fits(attributes):
                continue
            if count == self._settings.limit:
                self.is_cut_short = True
                return
            count += 1
            yield answer(self._identifier, attributes, self._charset or item.charset, KEYS)
        self.is_cut_short = self._selection.is_cut_short

    def _since(self) -> str:
        """Return the first day whose steps are still on the worklist; empty: all are."""
        if self._settings.expire_days is None:
            return ""
        today = dt.datetime.now().astimezone().date()
        return (today - dt.timedelta(days=self._settings.expire_days)).strftime("%Y%m%d")

    def _with_station(self, attributes: Attributes) -> Attributes:
        """Return an item with the caller as station where it has none and the settings say so."""
        (step,) = attributes[SCHEDULED_STEPS]
        if self._settings.fill_station and not valid_values(_STATION, step.get(_STATION)):
            return {**attributes, SCHEDULED_STEPS: [{**step, _STATION: self._caller}]}
        return attributes
