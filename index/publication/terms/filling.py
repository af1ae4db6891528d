"""Terms of resources that an earlier version published, or that were made by other tables of parameters."""

import gzip
from typing import Any

from index.database.connection import Database
from index.database.tables import Resource, ResourceContent
from index.publication.terms.extraction import terms_of
from index.publication.terms.parameters import TERMS
from index.publication.terms.saving import save_terms

# Resources at a time, only where nothing else waits: a tenth of a second.
RESOURCES = 200


def without_terms() -> Any:
    """Return the condition that a resource's terms are still to be made."""
    return (
        (Resource.deleted == 0) & (Resource.size > 0) & ((Resource.terms < TERMS) | (Resource.terms > TERMS))
    )


class TermFilling:
    """Makes the terms that are missing, some at a time. Several processes may do it at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last = 0
        self.is_done = database.is_read_only

    def go_on(self) -> int:
        """Make the terms of some resources; return of how many. Raises NotKept."""
        columns = Resource.id, Resource.fhir, Resource.type, Resource.version, ResourceContent.content
        query = Resource.select(*columns).join(ResourceContent, on=(ResourceContent.id == Resource.id))
        query = query.where(without_terms() & (Resource.id > self._last))
        rows = self._database.rows(query.order_by(Resource.id).limit(RESOURCES))
        self.is_done = not rows
        if self.is_done:
            return 0
        self._last = rows[-1][0]
        made = [
            (row, version, terms_of(fhir, kind, gzip.decompress(content)))
            for row, fhir, kind, version, content in rows
        ]
        with self._database.writing(durable=False):
            for row, version, terms in made:
                same = without_terms() & (Resource.id == row) & (Resource.version == version)
                if self._database.execute(Resource.update(terms=TERMS).where(same)):
                    save_terms(self._database, row, terms)
        return len(made)
