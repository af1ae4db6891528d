"""The configuration of the resources, and the result of a build."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal
from urllib.parse import urlsplit

from index.imagingstudy.times import zone
from index.imagingstudy.values import is_uri

Resource = dict[str, Any]

_UID = re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))*")
_ADDRESS = re.compile(r"https?://[^\s<>\"{}|\\^`]+")


def check_address(address: str) -> None:
    """Raise ValueError where this cannot be the base of a DICOMweb service's addresses."""
    try:
        parts = urlsplit(address)
        is_sound = bool(_ADDRESS.fullmatch(address) and parts.hostname and parts.port != 0)
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError("is no http or https address")
    if parts.query or parts.fragment:
        raise ValueError("is no base of addresses: something stands behind its path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user name, which every resource would show")


@dataclass(frozen=True, slots=True)
class Rules:
    """The part of the configuration that the builders need.

    A system is the URI of Identifier.system; where it is None and the object has no issuer, the identifier
    has no system. Raises ValueError, naming the field, for a value that FHIR could not hold.

    dicomweb_base: address of the DICOMweb service; None or empty leaves `url`, `content` and `endpoint` out.
    timezone: of times without TimezoneOffsetFromUTC, as "+01:00" or "Europe/Berlin"; None: dates alone.
    patient_system, accession_system, study_id_system, practitioner_system, admission_system: of PatientID,
        AccessionNumber, StudyID, a person's identification code and AdmissionID.
    placer_system, filler_system, requested_procedure_system: of an order's numbers.
    issuer_systems: the system for each local issuer name (IssuerOfPatientID, LocalNamespaceEntityID).
    coding_systems: the system for each local CodingSchemeDesignator, as 99RIS; preferred to built-in ones.
    withdrawn: the resource of a withdrawn study in R4 and R5: with status entered-in-error, or none.
    profile: mado: R4 resources are those of IHE RAD MADO. None: FHIR's own.
    retrieve_location_uid: Retrieve Location UID (0040,E011) of the service at dicomweb_base, for MADO.
    """

    dicomweb_base: str | None = None
    timezone: str | None = None
    patient_system: str | None = None
    accession_system: str | None = None
    study_id_system: str | None = None
    practitioner_system: str | None = None
    admission_system: str | None = None
    placer_system: str | None = None
    filler_system: str | None = None
    requested_procedure_system: str | None = None
    issuer_systems: Mapping[str, str] = field(default_factory=dict)
    coding_systems: Mapping[str, str] = field(default_factory=dict)
    withdrawn: Literal["entered-in-error", "gone"] = "entered-in-error"
    profile: Literal["mado"] | None = None
    retrieve_location_uid: str | None = None

    def __post_init__(self) -> None:
        if self.dicomweb_base:
            try:
                check_address(self.dicomweb_base)
            except ValueError as error:
                raise ValueError(f"dicomweb_base: {self.dicomweb_base!r} {error}") from None
        if self.timezone and zone(self.timezone) is None:
            raise ValueError(f"timezone: {self.timezone!r} is neither an offset like +01:00 nor a known zone")
        if self.withdrawn not in ("entered-in-error", "gone"):
            raise ValueError(f"withdrawn: {self.withdrawn!r} is neither entered-in-error nor gone")
        if self.profile not in (None, "mado"):
            raise ValueError(f"profile: {self.profile!r} is not mado")
        if self.retrieve_location_uid and not _UID.fullmatch(self.retrieve_location_uid):
            raise ValueError(f"retrieve_location_uid: {self.retrieve_location_uid!r} is no UID")
        for name, system in self._systems():
            if not is_uri(system):
                raise ValueError(f"{name}: {system!r} is no URI")

    def _systems(self) -> list[tuple[str, str]]:
        single = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name.endswith("_system")]
        tables = [
            (f"{name}.{key}", system)
            for name in ("issuer_systems", "coding_systems")
            for key, system in getattr(self, name).items()
        ]
        return [(name, system) for name, system in single + tables if system]

    @property
    def base(self) -> str:
        """The DICOMweb base without a trailing slash, or an empty text."""
        return (self.dicomweb_base or "").rstrip("/")


@dataclass(frozen=True, slots=True)
class Built:
    """The resources of a study, the ImagingStudy first, and the issues.

    An issue is a sentence without patient data about a study, series or instance: what was left out, and why.
    """

    resources: list[Resource]
    issues: list[str]
