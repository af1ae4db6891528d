"""Rows -> the attributes of patients, studies, series and instances, as their resources have them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import SQL, Field, chunked

from index.database.connection import Database
from index.database.tables import Instance, Series, SeriesVariant, Study, StudyVariant
from index.election.patients import StudyPatient, study_patients
from index.election.values import Variant, elect
from index.query.information_models import Level
from index.records import Attributes

# Studies of patients that are read at one time: a phantom has thousands.
_STUDIES = 500
_COUNTS = ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances")


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity: the identity that it and each entity above it has, and the attributes of all of them."""

    identities: Mapping[Level, Any]
    attributes: Attributes


class Entities:
    """Reads entities by their row ids. What costs a query of its own is read where it is `wanted`."""

    def __init__(self, database: Database, wanted: Collection[str]) -> None:
        self._database = database
        self._wanted = wanted

    def read(self, level: Level, rows: Sequence[int]) -> list[Entity]:
        """Return the entities of these rows in one snapshot, in their order; rows that are gone are left out.

        The row of a patient may have several: studies with instances of two patients have one of their own.
        """
        readers: dict[Level, Callable[[Sequence[int]], list[Entity]]] = {
            Level.PATIENT: self._patients,
            Level.STUDY: lambda some: _in_order(some, self._studies(some)),
            Level.SERIES: lambda some: _in_order(some, self._series(some)),
            Level.IMAGE: lambda some: _in_order(some, self._instances(some)),
        }
        with self._database.reading():
            return readers[level](rows)

    def _patients(self, rows: Sequence[int]) -> list[Entity]:
        mentioned = StudyVariant.select(StudyVariant.study).where(StudyVariant.patient.in_(rows)).distinct()
        studies = [study for (study,) in self._database.rows(mentioned)]
        found: dict[int, dict[str, Attributes]] = {row: {} for row in rows}
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for some in chunked(studies, _STUDIES):
            for patient, _, series, instances in self._elected(some).values():
                if patient.row in found:
                    key = patient.published.id
                    found[patient.row][key] = patient.published.attributes
                    totals[key] = [
                        sum(pair) for pair in zip(totals[key], (1, series, instances), strict=True)
                    ]
        return [
            Entity({Level.PATIENT: key}, {**attributes, **dict(zip(_COUNTS, totals[key], strict=True))})
            for row in rows
            for key, attributes in found[row].items()
        ]

    def _elected(self, rows: Sequence[int]) -> dict[int, tuple[StudyPatient, str, int, int]]:
        """Return patient, UID and counts of the studies that have instances."""
        query = Study.select(Study.id, Study.uid, Study.series_count, Study.instance_count)
        query = query.where(Study.id.in_(rows) & (Study.instance_count > SQL("0")))
        studies = {row: rest for row, *rest in self._database.rows(query)}
        patients = study_patients(self._database, {row: uid for row, (uid, _, _) in studies.items()})
        return {row: (patient, *studies[row]) for row, patient in patients.items()}

    def _studies(self, rows: Sequence[int]) -> dict[int, Entity]:
        elected = self._elected(rows)
        variants = self._variants(StudyVariant, StudyVariant.study, rows)
        collected = self._collected(rows)
        totals: dict[str, Attributes] = {}
        if any(keyword in self._wanted for keyword in _COUNTS):
            patients = self._patients(sorted({patient.row for patient, _, _, _ in elected.values()}))
            totals = {patient.identities[Level.PATIENT]: patient.attributes for patient in patients}
        found = {}
        for row, (patient, uid, series, instances) in elected.items():
            key = patient.published.id
            found[row] = Entity(
                {Level.PATIENT: key, Level.STUDY: row},
                {
                    **patient.published.attributes,
                    **totals.get(key, {}),
                    **elect(variants[row], "study", uid)[0],
                    **collected[row],
                    "StudyInstanceUID": uid,
                    "NumberOfStudyRelatedSeries": series,
                    "NumberOfStudyRelatedInstances": instances,
                },
            )
        return found

    def _collected(self, studies: Sequence[int]) -> dict[int, dict[str, list[str]]]:
        """Return what is collected from the series and instances of each study."""
        collected: dict[int, dict[str, list[str]]] = defaultdict(dict)
        if "ModalitiesInStudy" in self._wanted:
            query = Series.select(Series.id, Series.study).where(Series.study.in_(studies))
            series = dict(self._database.rows(query))
            modalities = defaultdict(set)
            for row, variants in self._variants(SeriesVariant, SeriesVariant.series, list(series)).items():
                modalities[series[row]].add(elect(variants, "series", "")[0].get("Modality", ""))
            for study, values in modalities.items():
                collected[study]["ModalitiesInStudy"] = sorted(values - {""})
        if "SOPClassesInStudy" in self._wanted:
            classes = Series.study, Instance.sop_class_uid
            stored = Instance.select(*classes).join(Series).where(Series.study.in_(studies)).distinct()
            for study, sop_class in self._database.rows(stored.order_by(*classes)):
                collected[study].setdefault("SOPClassesInStudy", []).append(sop_class)
        return collected

    def _series(self, rows: Sequence[int]) -> dict[int, Entity]:
        query = Series.select(Series.id, Series.uid, Series.study, Series.instance_count)
        series = self._database.rows(query.where(Series.id.in_(rows)))
        studies = self._studies(sorted({study for _, _, study, _ in series}))
        variants = self._variants(SeriesVariant, SeriesVariant.series, rows)
        return {
            row: Entity(
                {**studies[study].identities, Level.SERIES: row},
                {
                    **studies[study].attributes,
                    **elect(variants[row], "series", uid)[0],
                    "SeriesInstanceUID": uid,
                    "NumberOfSeriesRelatedInstances": instances,
                },
            )
            for row, uid, study, instances in series
            if study in studies
        }

    def _instances(self, rows: Sequence[int]) -> dict[int, Entity]:
        columns = Instance.series, Instance.uid, Instance.sop_class_uid, Instance.transfer_syntax
        query = Instance.select(Instance.id, *columns, Instance.attributes).where(Instance.id.in_(rows))
        instances = self._database.rows(query)
        series = self._series(sorted({instance[1] for instance in instances}))
        return {
            row: Entity(
                {**series[parent].identities, Level.IMAGE: row},
                {
                    **series[parent].attributes,
                    **attributes,
                    "SOPInstanceUID": uid,
                    "SOPClassUID": sop_class,
                    "AvailableTransferSyntaxUID": syntax,
                },
            )
            for row, parent, uid, sop_class, syntax, attributes in instances
            if parent in series
        }

    def _variants(self, table: Any, parent: Field, rows: Sequence[int]) -> defaultdict[int, list[Variant]]:
        query = table.select(parent, table.attributes, table.instance_count).where(parent.in_(rows))
        variants = defaultdict(list)
        for row, attributes, count in self._database.rows(query):
            variants[row].append(Variant(attributes, count))
        return variants


def _in_order(rows: Sequence[int], entities: Mapping[int, Entity]) -> list[Entity]:
    return [entities[row] for row in rows if row in entities]
