"""One build: a study, a version, the rules, and what is collected on the way."""

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


class Build:
    """What the builders of one ImagingStudy share: input, doubts, and the resources that it refers to."""

    def __init__(self, study: Study, version: str, rules: Rules) -> None:
        self.study = study
        self.version = version
        self.rules = rules
        self.dialect: Dialect = DIALECTS[version]
        self.doubts = Issues()
        self.subject = f"study {study.uid}"
        self._others: dict[str, Resource] = {}
        self._moments: dict[tuple[int, str], str] = {}

    @property
    def others(self) -> list[Resource]:
        """The resources referred to, in the order first referred to."""
        return list(self._others.values())

    def refer(self, resource: Resource, display: str = "") -> dict[str, str]:
        """Return a Reference to a resource, which will stand beside the study once."""
        target = f"{resource['resourceType']}/{resource['id']}"
        self._others.setdefault(target, resource)
        return {"reference": target, "display": display} if display else {"reference": target}

    @property
    def patient(self) -> dict[str, str]:
        """The Reference to the study's patient."""
        return {"reference": f"Patient/{fhir_id(self.study.patient.id)}"}

    @cached_property
    def started(self) -> str:
        """StudyDate and StudyTime as a dateTime, or the start of a series that is before (R6 wants none)."""
        own = earliest = self.moment(self.study.attributes, "StudyDate", "StudyTime", self.subject)
        for series in self.study.series if own else ():
            subject = f"series {series.uid}"
            moment = self.moment(series.attributes, "SeriesDate", "SeriesTime", subject)
            if moment and is_before(moment, own):
                self.doubts.add(subject, "starts before its study, which starts with the earliest series")
                earliest = moment if is_before(moment, earliest) else earliest
        return earliest

    def concepts(self, items: Sequence[Attributes]) -> list[dict[str, Any]]:
        """Return a CodeableConcept for each item; a code whose scheme has no known system is a doubt."""
        made = [concept(item, self.rules, self.dialect) for item in items]
        for found in made:
            if found.get("coding") and "system" not in found["coding"][0]:
                self.doubts.add(self.subject, "a code's scheme has no known system, written without one")
        return made

    def text(self, attributes: Attributes, keyword: str, subject: str) -> str:
        """Return the text of an attribute; what is there and cannot be written is a doubt."""
        found = first(attributes, keyword)
        if not found and attributes.get(keyword):
            self.doubts.add(subject, f"{keyword} is no text that FHIR holds, left out")
        return found

    def date(self, attributes: Attributes, keyword: str, subject: str) -> str:
        """Return the FHIR date of a DA attribute; a malformed one is a doubt."""
        value = first(attributes, keyword)
        made = date(value)
        if value and not made:
            self.doubts.add(subject, f"{keyword} is no date, left out")
        return made

    def moment(self, attributes: Attributes, day: str, time: str, subject: str) -> str:
        """Return the FHIR dateTime of a date and a time attribute; a malformed one is a doubt, once."""
        key = id(attributes), day
        if key not in self._moments:
            self._moments[key] = self._moment(attributes, day, time, subject)
        return self._moments[key]

    def _moment(self, attributes: Attributes, day: str, time: str, subject: str) -> str:
        if not self.date(attributes, day, subject):
            return ""
        clock = first(attributes, time)
        if clock and not is_time(clock):
            self.doubts.add(subject, f"{time} is no time with hours and minutes, left out")
        offset = first(attributes, "TimezoneOffsetFromUTC") or first(
            self.study.attributes, "TimezoneOffsetFromUTC"
        )
        if offset and not is_offset(offset):
            self.doubts.add(subject, "TimezoneOffsetFromUTC is no offset from -14:00 to +14:00, not used")
        return date_time(first(attributes, day), clock, offset, self.rules.timezone)


def resource(kind: str, identity: str, **elements: Any) -> Resource:
    """Return a resource of those elements that say something."""
    return {"resourceType": kind, "id": identity} | said(elements)


def said(elements: dict[str, Any]) -> dict[str, Any]:
    """Return the elements that say something: FHIR has no null, no empty text, no empty list."""
    return {name: value for name, value in elements.items() if value not in (None, "", [], {})}


def attribute_text(value: Any) -> str:
    """Return a value as a FHIR string, several joined as DICOM prints them (PS3.5 Section 6.4)."""
    if isinstance(value, (list, tuple)):
        joined = "\\".join(map(clean, value))
        return clean(joined) if joined.strip("\\") else ""
    return clean(value)
