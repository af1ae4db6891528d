"""The worklist, as the façade hands it out."""

from typing import TYPE_CHECKING

from index.database.connection import Database
from index.orders.settings import WorklistSettings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from index.worklist.query import WorklistQuery


class Worklist:
    """Makes queries of the worklist (PS3.4 Annex K)."""

    def __init__(self, database: Database, settings: WorklistSettings) -> None:
        self._database = database
        self._settings = settings

    def find(
        self,
        identifier: "Dataset",
        caller: str,
        charset: str | None = None,
        *,
        ignore_accents: bool = False,
    ) -> "WorklistQuery":
        """Return a caller's query, to be iterated. Raises BadIdentifier."""
        from index.worklist.query import WorklistQuery

        return WorklistQuery(
            self._database, self._settings, identifier, caller, charset, ignore_accents=ignore_accents
        )
