"""Contents of resources that an earlier version published as files only, brought into the index."""

from peewee import SQL

from index.database.connection import Database
from index.database.tables import Resource, Study, StudyResource

# Studies that are published again at a time, only where nothing else waits: a tenth of a second.
STUDIES = 20


class ContentFilling:
    """Has the studies of resources without content published again: no version and no entry comes of it.

    Each resource is taken once: a study that cannot be published is left to the next start.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last = 0
        self.is_done = database.is_read_only

    def go_on(self) -> list[int]:
        """Mark some studies changed, and return them. Raises NotKept."""
        zero = SQL("0")  # as in the condition of the index
        query = Resource.select(Resource.id, StudyResource.study).join(StudyResource)
        query = query.where((Resource.id > self._last) & (Resource.size == zero) & (Resource.deleted == zero))
        rows = self._database.rows(query.order_by(Resource.id).limit(STUDIES))
        self.is_done = not rows
        if self.is_done:
            return []
        self._last = rows[-1][0]
        studies = sorted({study for _, study in rows})
        with self._database.writing(durable=False):
            changed = Study.update(revision=Study.revision + 1)
            self._database.execute(changed.where(Study.id.in_(studies)))
        return studies
