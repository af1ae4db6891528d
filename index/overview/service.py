"""What an operator looks at, as the façade hands it out at `Index.overview`."""

from dataclasses import dataclass
from itertools import islice

from peewee import SQL, fn

from index.database.connection import Database
from index.database.tables import Instance, Series, Study, StudyListing
from index.errors import NotFound
from index.overview.orders import OrderOverview
from index.overview.situations import Situation, in_situation, situations
from index.overview.story import StudyStory, story_of
from index.publication.listing import Listed
from index.publication.search import Position, find, position
from index.query.study_filter import StudyFilter


@dataclass(frozen=True, slots=True)
class StudyPage:
    """A page of the list; `more`: whether studies follow. `situations` are by row id."""

    studies: tuple[Listed, ...]
    situations: dict[int, list[Situation]]
    more: bool
    order: StudyFilter

    def position(self, which: int) -> Position:
        """Where a study of the page stands, to ask for those behind it."""
        return position(self.order)(self.studies[which])


@dataclass(frozen=True, slots=True)
class InstanceLine:
    """An instance in a list. `received` is in milliseconds since 1970."""

    id: int
    uid: str
    sop_class_uid: str
    transfer_syntax: str
    size: int
    received: int
    number: str
    doubts: tuple[str, ...]


class Overview:
    """Reads for an operator's page. Safe to use from many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.orders = OrderOverview(database)

    def studies(
        self,
        wanted: StudyFilter,
        situation: Situation | None = None,
        after: Position | None = None,
        size: int = 50,
    ) -> StudyPage:
        """Return a page of the studies asked for, behind a position. Raises NotKept."""
        among = in_situation(situation) if situation else None
        found = list(islice(find(self._database, wanted, after, among), size + 1))
        page = tuple(found[:size])
        return StudyPage(
            page, situations(self._database, [one.id for one in page]), len(found) > size, wanted
        )

    def count(self) -> int:
        """Return how many studies have instances, as of their last publication."""
        query = StudyListing.select(fn.COUNT(SQL("*"))).where(StudyListing.state == "available")
        return int(self._database.rows(query)[0][0])

    def story(self, uid: str) -> StudyStory:
        """Return what happened to a study, and how it stands. Raises NotFound, NotKept."""
        return story_of(self._database, uid)

    def instances(self, study: str, series: str, after: int = 0, size: int = 100) -> list[InstanceLine]:
        """Return instances of a series in order of arrival, behind a row id. Raises NotFound, NotKept."""
        rows = self._database.rows(
            Series.select(Series.id).join(Study).where((Study.uid == study) & (Series.uid == series))
        )
        if not rows:
            raise NotFound(f"study {study} has no series {series} in the index")
        one = Instance
        columns = one.id, one.uid, one.sop_class_uid, one.transfer_syntax, one.size, one.received
        query = one.select(*columns, one.attributes, one.doubts)
        query = query.where((one.series == rows[0][0]) & (one.id > after)).order_by(one.id).limit(size)
        return [
            InstanceLine(
                row,
                uid,
                kind,
                syntax,
                length,
                received,
                str(values.get("InstanceNumber") or ""),
                tuple(doubts),
            )
            for row, uid, kind, syntax, length, received, values, doubts in self._database.rows(query)
        ]

    def place(self, instance: str) -> tuple[str, str]:
        """Return the Study and Series Instance UID of an instance. Raises NotFound, NotKept."""
        query = Instance.select(Study.uid, Series.uid).join(Series).join(Study)
        rows = self._database.rows(query.where(Instance.uid == instance))
        if not rows:
            raise NotFound(f"instance {instance} is not in the index")
        return rows[0]
