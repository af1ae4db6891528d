"""What the builders of one ImagingStudy share."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from index.imagingstudy.codes import concept
from index.imagingstudy.issues import Issues
from index.imagingstudy.rules import Resource, Rules
from index.imagingstudy.terminology.systems import DIALECTS, Dialect
from index.imagingstudy.times import date, date_time, is_before, is_offset, is_time
from index.imagingstudy.values import clean, fhir_id, first
from index.records import Attributes, Study


class BuildContext:
    """The study, the version, the rules, and what is collected: issues, and the resources referred to."""

    def __init__(self, study: Study, version: str, rules: Rules) -> None:
        self.study = study
        self.version = version
        self.rules = rules
        self.dialect: Dialect = DIALECTS[version]
        self.issues = Issues()
        self.subject = f"study {study.uid}"
        self._others: dict[str, Resource] = {}
        self._moments: dict[tuple[int, str], str] = {}

    @property
    def others(self) -> list[Resource]:
        """The resources referred to, in the order of their first reference."""
        return list(self._others.values())

    def refer(self, resource: Resource, display: str = "") -> dict[str, str]:
        """Return a Reference to a resource, and add the resource to `others`."""
        target = f"{resource['resourceType']}/{resource['id']}"
        self._others.setdefault(target, resource)
        return {"reference": target, "display": display} if display else {"reference": target}

    @property
    def patient(self) -> dict[str, str]:
        """The Reference to the study's patient."""
        return {"reference": f"Patient/{fhir_id(self.study.patient.id)}"}

    @cached_property
    def started(self) -> str:
        """StudyDate and StudyTime as a dateTime, or the start of an earlier series, as R6 wants."""
        own = earliest = self.moment(self.study.attributes, "StudyDate", "StudyTime", self.subject)
        for series in self.study.series if own else ():
            subject = f"series {series.uid}"
            moment = self.moment(series.attributes, "SeriesDate", "SeriesTime", subject)
            if moment and is_before(moment, own):
                self.issues.add(subject, "starts before its study, which starts with the earliest series")
                earliest = moment if is_before(moment, earliest) else earliest
        return earliest

    def concepts(self, items: Sequence[Attributes]) -> list[dict[str, Any]]:
        """Return a CodeableConcept for each item. A code of a scheme without a known system is an issue."""
        concepts = [concept(item, self.rules, self.dialect) for item in items]
        for each in concepts:
            if each.get("coding") and "system" not in each["coding"][0]:
                self.issues.add(self.subject, "a code's scheme has no known system, written without one")
        return concepts

    def text(self, attributes: Attributes, keyword: str, subject: str) -> str:
        """Return the text of an attribute. A value that FHIR cannot hold is an issue."""
        text = first(attributes, keyword)
        if not text and attributes.get(keyword):
            self.issues.add(subject, f"{keyword} is no text that FHIR holds, left out")
        return text

    def date(self, attributes: Attributes, keyword: str, subject: str) -> str:
        """Return the FHIR date of a DA attribute. A malformed one is an issue."""
        value = first(attributes, keyword)
        fhir_date = date(value)
        if value and not fhir_date:
            self.issues.add(subject, f"{keyword} is no date, left out")
        return fhir_date

    def moment(self, attributes: Attributes, day: str, time: str, subject: str) -> str:
        """Return the FHIR dateTime of a date and a time attribute. A malformed one is an issue, once."""
        key = id(attributes), day
        if key not in self._moments:
            self._moments[key] = self._moment(attributes, day, time, subject)
        return self._moments[key]

    def _moment(self, attributes: Attributes, day: str, time: str, subject: str) -> str:
        if not self.date(attributes, day, subject):
            return ""
        clock = first(attributes, time)
        if clock and not is_time(clock):
            self.issues.add(subject, f"{time} is no time with hours and minutes, left out")
        zone = "TimezoneOffsetFromUTC"
        offset = first(attributes, zone) or first(self.study.attributes, zone)
        if offset and not is_offset(offset):
            self.issues.add(subject, f"{zone} is no offset from -14:00 to +14:00, not used")
        return date_time(first(attributes, day), clock, offset, self.rules.timezone)


def resource(kind: str, identity: str, **elements: Any) -> Resource:
    """Return a resource of the elements that are not empty."""
    return {"resourceType": kind, "id": identity} | non_empty(elements)


def non_empty(elements: dict[str, Any]) -> dict[str, Any]:
    """Return the elements that are not empty: FHIR has no null, no empty text, no empty list."""
    return {name: value for name, value in elements.items() if value not in (None, "", [], {})}


def attribute_text(value: Any) -> str:
    """Return a value as a FHIR string; several are joined as in DICOM (PS3.5 Section 6.4)."""
    if isinstance(value, (list, tuple)):
        joined = "\\".join(map(clean, value))
        return clean(joined) if joined.strip("\\") else ""
    return clean(value)
