"""Queries of the Query/Retrieve Service Class (PS3.4 Annex C), as the facade hands them out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from index.database.connection import Database

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from index.query.identifiers import Identifier
    from index.query.study_query import QueryOptions, StudyQuery


class Queries:
    """Makes queries. `catch_up` returns when what was acknowledged before is indexed."""

    def __init__(self, database: Database, catch_up: Callable[[], object]) -> None:
        self._database = database
        self._catch_up = catch_up

    def find(self, identifier: "Dataset | Identifier", options: "QueryOptions") -> "StudyQuery":
        """Return a query, to be iterated. Raises BadIdentifier."""
        from index.query.study_query import StudyQuery

        query = StudyQuery(self._database, identifier, options)
        self._catch_up()
        return query
