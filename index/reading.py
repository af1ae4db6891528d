"""What is read of an index: its studies, their resources, and the change feed."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from index.database.connection import Database
from index.database.study_facts import StudyFacts, study_facts
from index.errors import NotFound
from index.imagingstudy.settings import FhirSettings
from index.overview.service import Overview
from index.publication.conflicts import (
    ConflictingObject,
    conflicting_objects,
    describe_conflicts,
    summaries_in_conflict,
)
from index.publication.feed import Entry, changes, last_change, pruned
from index.publication.resources import Resources
from index.publication.search import find, fits
from index.publication.searching.resource_search import ResourceSearch
from index.publication.study import StudyPublication, bundled
from index.publication.study_rows import announced_summaries, load_study
from index.query.study_filter import StudyFilter
from index.records import Disagreed
from index.storage.object_store import ObjectStore


class Reading:
    """The reading half of the façade."""

    _database: Database
    _objects: ObjectStore
    _fhir: FhirSettings
    _publication: StudyPublication
    resources: Resources

    @cached_property
    def resource_search(self) -> ResourceSearch:
        """FHIR search over the published resources."""
        return ResourceSearch(self._database, self.resources)

    @cached_property
    def overview(self) -> Overview:
        """Studies and orders as operators see them."""
        return Overview(self._database)

    def studies(self) -> list[dict[str, Any]]:
        """Return all studies that have instances, in the order of their arrival: see `find_studies`."""
        return list(self.find_studies())

    def find_studies(self, wanted: StudyFilter | None = None) -> Iterator[dict[str, Any]]:
        """Yield the studies that a filter asks for, each as a mapping of the contract's keys."""
        return (one.summary.row() for one in find(self._database, wanted or StudyFilter()))

    def announced(self, wanted: StudyFilter | None = None) -> list[dict[str, Any]]:
        """Return the same of studies that performed steps tell of, and of which nothing has arrived."""
        found = announced_summaries(self._database)
        return [summary.row() for summary, name in found if fits(summary, name, wanted or StudyFilter())]

    def studies_in_conflict(self, wanted: StudyFilter | None = None) -> list[dict[str, Any]]:
        """Return the studies of which every data set is kept aside, with `conflicts`: how many those are."""
        found = summaries_in_conflict(self._database, self._objects)
        return [summary.row() for summary, name in found if fits(summary, name, wanted or StudyFilter())]

    def kept_aside(self, uid: str) -> list[ConflictingObject]:
        """Return the data sets of a study that are kept aside."""
        return conflicting_objects(self._database, uid)

    def resource(
        self, uid: str, version: str | None = None, *, bundle: bool = False
    ) -> tuple[bytes, tuple[Disagreed, ...]]:
        """Return a study's ImagingStudy, as its file has it, and where its instances disagree.

        `bundle`: a transaction Bundle with all that it refers to. Raises NotFound, NotExpressible.
        """
        try:
            study = load_study(self._database, uid)
        except NotFound as error:
            if found := self.kept_aside(uid):
                raise NotFound(f"{error}; it {describe_conflicts(found)}") from error
            raise
        published = self._publication.resources(study, version or self._fhir.versions[0])
        return bundled(published) if bundle else published[0].content, tuple(study.disagreements)

    def study_facts(self, uid: str) -> StudyFacts:
        """Return what the audit trail says of a study, series or instance. Raises NotKept."""
        return study_facts(self._database, uid)

    def changes(self, since: int = 0) -> Iterator[Entry]:
        """Yield the entries of the change feed behind number `since`, oldest first. Raises ChangesPruned."""
        return changes(self._database, since)

    def last_change(self) -> int:
        """Return the number of the last entry of the change feed; 0 where there is none."""
        return last_change(self._database)

    def changes_pruned(self) -> int:
        """Return the number up to which entries of the change feed have been deleted; 0: none was."""
        return pruned(self._database)
