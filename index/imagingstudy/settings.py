"""`[fhir]`: which resources are written."""

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field, field_validator

from index.imagingstudy.rules import Rules, check_address
from index.imagingstudy.times import zone
from index.imagingstudy.values import is_uri
from index.settings import Section, Unique

FhirVersion = Literal["dstu2", "r4", "r5"]


class FhirSettings(Section):
    """`[fhir]`: which resources are written, and with which systems."""

    versions: Annotated[tuple[FhirVersion, ...], Unique] = Field(
        ("dstu2", "r4", "r5"), min_length=1, description="The FHIR versions that are published."
    )
    base_url: str | None = Field(
        None,
        description="DICOMweb base address. Default: http.public_url/dicom-web. Without both, url, content"
        " and endpoint are left out.",
    )
    timezone: str | None = Field(
        None, description="Zone of times that carry none, as +01:00 or Europe/Berlin. None: dates alone."
    )
    patient_system: str | None = Field(None, description="Identifier system of PatientID.")
    accession_system: str | None = Field(None, description="Identifier system of AccessionNumber.")
    study_id_system: str | None = Field(None, description="Identifier system of StudyID.")
    practitioner_system: str | None = Field(
        None, description="Identifier system of a person's identification code."
    )
    admission_system: str | None = Field(None, description="Identifier system of AdmissionID.")
    placer_system: str | None = Field(None, description="Identifier system of placer order numbers.")
    filler_system: str | None = Field(None, description="Identifier system of filler order numbers.")
    requested_procedure_system: str | None = Field(
        None, description="Identifier system of RequestedProcedureID."
    )
    issuer_systems: dict[str, str] = Field(
        default_factory=dict,
        description="Identifier system by local issuer name (IssuerOfPatientID and the like).",
    )
    coding_systems: dict[str, str] = Field(
        default_factory=dict, description="Code system by local CodingSchemeDesignator, such as 99RIS."
    )
    withdrawn: Literal["entered-in-error", "gone"] = Field(
        "gone", description="What becomes of a deleted study's resource (DSTU2 has no status: there it goes)."
    )
    profile: Literal["mado"] | None = Field(
        None, description="Profile of the R4 resources: IHE RAD MADO. None: FHIR's own."
    )
    retrieve_location_uid: (
        Annotated[str, Field(max_length=64, pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$")] | None
    ) = Field(
        None,
        description="Retrieve Location UID (0040,E011) of what answers at base_url, which MADO wants of an "
        "endpoint.",
    )

    @field_validator("base_url")
    @classmethod
    def _sound_address(cls, value: str | None) -> str | None:
        if value:
            check_address(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value and zone(value) is None:
            raise ValueError("is neither an offset like +01:00 nor a known zone like Europe/Berlin")
        return value

    @field_validator(
        "patient_system",
        "accession_system",
        "study_id_system",
        "practitioner_system",
        "admission_system",
        "placer_system",
        "filler_system",
        "requested_procedure_system",
        "issuer_systems",
        "coding_systems",
    )
    @classmethod
    def _sound_systems(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        named = value if isinstance(value, dict) else {"": value}
        for name, system in named.items():
            if system and not is_uri(system):
                raise ValueError(f"{name}: {system!r} is no URI" if name else "is no URI")
        return value

    def rules(self) -> Rules:
        """Return the rules of the builders. Raises ValueError for what FHIR could not hold."""
        own = {field.name for field in fields(Rules)} & set(type(self).model_fields)
        return Rules(dicomweb_base=self.base_url, **{name: getattr(self, name) for name in own})
