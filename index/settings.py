"""The index's own sections of the configuration; scp/settings/sections.py composes them with its own."""

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
)

FhirVersion = Literal["dstu2", "r4", "r5"]
# A century: what lies beyond is a slip, and no date any more.
MOST_DAYS = 36500
# Answers that a query may ask for; more than a scanner or the memory holds.
MOST_ANSWERS = 1_000_000

# RFC 1035 Section 2.3.4, written with dots.
LONGEST_HOST = 253

Several = TypeVar("Several", bound=tuple[Any, ...])


def _is_title(value: str) -> str:
    if not value.strip():
        raise ValueError("an AE title has at least one character that is no space (PS3.5 Table 6.2-1)")
    return value


def _is_host(value: str) -> str:
    # To getaddrinfo(3) no name at all means every address.
    try:
        value.encode("idna")  # as getaddrinfo(3) is asked
        is_sound = bool(value) and len(value) <= LONGEST_HOST and value.isprintable() and " " not in value
    except UnicodeError:
        is_sound = False
    if not is_sound:
        raise ValueError("is no host name or address")
    return value


def _is_unique(values: Several) -> Several:
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return values


def _is_given(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty; leave the key out for the default")
    return value


# PS3.5 Table 6.2-1: 16 characters at most, no backslash, no control characters, not only spaces.
AETitle = Annotated[str, Field(pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$"), AfterValidator(_is_title)]
Host = Annotated[str, AfterValidator(_is_host)]
# Of values in an order, each of which counts once.
Unique = AfterValidator(_is_unique)
# An empty path would be the folder that the daemon happens to be started in.
GivenPath = Annotated[Path, BeforeValidator(_is_given)]


class Section(BaseModel):
    """A section of the configuration: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class StorageSettings(Section):
    """`[storage]`: where objects are kept and how safely."""

    path: GivenPath | None = Field(
        None, description="Data directory. Default: $STATE_DIRECTORY, or else ./imagingstudyd-data."
    )
    durability: Literal["power-loss", "process-crash"] = Field(
        "power-loss",
        description="What an acknowledged instance survives. process-crash skips the syncs, for speed.",
    )
    duplicates: Literal["keep-first", "replace"] = Field(
        "keep-first",
        description="Which data set stays when another one arrives with the same SOP Instance UID.",
    )
    watermark: Annotated[int, Field(ge=0)] = Field(
        512 * 1024 * 1024,
        description="Free bytes below which C-STORE is answered A700, until there is room again.",
    )
    conflicts: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="How many conflicting data sets are kept in conflicts/; further ones are only logged.",
    )


class IndexSettings(Section):
    """`[index]`: the database."""

    # A secret, since it may hold a password.
    url: SecretStr | None = Field(
        None,
        description="Database URL. Default: index.sqlite in the data directory. postgresql://… works too.",
    )

    @field_validator("url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        from index.database.connection import check_url

        if value is not None:
            check_url(value.get_secret_value())
        return value

    @property
    def file(self) -> Path | None:
        """Where an SQLite index lies that is named by a URL."""
        from index.database.connection import sqlite_path

        return sqlite_path(self.url.get_secret_value(), Path()) if self.url else None


class FhirSettings(Section):
    """`[fhir]`: which resources are written, and what stands in them."""

    versions: Annotated[tuple[FhirVersion, ...], Unique] = Field(
        ("dstu2", "r4", "r5"), min_length=1, description="The FHIR versions that are published."
    )
    base_url: str | None = Field(
        None, description="DICOMweb base address. Without it url, content and endpoint are left out."
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
        from index.imagingstudy.rules import check_address

        if value:
            check_address(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        from index.imagingstudy.times import zone

        if value and zone(value) is None:
            raise ValueError("is neither an offset like +01:00 nor a known zone like Europe/Berlin")
        return value

    @field_validator(
        "patient_system",
        "accession_system",
        "study_id_system",
        "practitioner_system",
        "placer_system",
        "filler_system",
        "requested_procedure_system",
        "issuer_systems",
        "coding_systems",
    )
    @classmethod
    def _sound_systems(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        from index.imagingstudy.values import is_uri

        named = value if isinstance(value, dict) else {"": value}
        for name, system in named.items():
            if system and not is_uri(system):
                raise ValueError(f"{name}: {system!r} is no URI" if name else "is no URI")
        return value


class RetentionSettings(Section):
    """`[retention]`: which studies are deleted, once an hour, oldest first. Without a rule none is."""

    days: Annotated[float, Field(gt=0)] | None = Field(
        None, description="For how many days a study is kept after its last instance came. None: for ever."
    )
    size: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How many bytes all objects may have together. None: as many as there is room for."
    )
    calling_aets: dict[AETitle, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Days for studies from these calling AE titles; of several senders the longest counts.",
    )
    called_aets: dict[AETitle, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Days for studies sent to these called AE titles of ours."
    )

    @property
    def is_active(self) -> bool:
        """Whether there is any rule."""
        return bool(self.days or self.calling_aets or self.called_aets) or self.size is not None


class PublishSettings(Section):
    """`[publish]`: how often a growing study is written again."""

    interval: Annotated[float, Field(ge=0, le=86400)] = Field(
        0.5, description="Seconds between two rewrites of a study that grows, at least."
    )
    backoff: Annotated[float, Field(ge=0)] = Field(
        20.0, description="The same as a multiple of what the study's last rewrite took."
    )


class Hl7Sender(Section):
    """One of `[[worklist.hl7_senders]]`: what is special about an HL7 sender."""

    application: str = Field("", description="MSH-3 that it is told by. Empty: any.")
    facility: str = Field("", description="MSH-4 that it is told by. Empty: any.")
    charset: str = Field("", description="Name of its character set, as in MSH-18, which it overrules.")
    map: Mapping[str, str] = Field(
        default_factory=dict,
        description="Attribute keyword to HL7 field, where the usual one does not hold it.",
    )

    @field_validator("charset")
    @classmethod
    def _known_charset(cls, value: str) -> str:
        from index.orders.hl7.charsets import known
        from index.orders.hl7.faults import BadMessage

        try:
            _ = value and known(value)
        except BadMessage as error:
            raise ValueError(error.text.removeprefix("MSH-18: ")) from None
        return value

    @field_validator("map")
    @classmethod
    def _known_places(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        from index.orders.hl7.mapping import KEYWORDS
        from index.orders.hl7.message import path

        for keyword, place in value.items():
            if keyword not in KEYWORDS:
                raise ValueError(f"{keyword!r} is none of {', '.join(sorted(KEYWORDS))}")
            path(place)
        return value


class UpstreamSettings(Section):
    """`[worklist.upstream]`: another worklist that is asked for its orders."""

    peer: AETitle = Field(description="AE title of the upstream worklist; [[peers]] has its host and port.")
    interval: Annotated[float, Field(gt=0, le=86400)] = Field(60.0, description="Seconds between queries.")
    days_before: Annotated[int, Field(ge=0, le=MOST_DAYS)] = Field(
        1, description="Days before today that are asked for."
    )
    days_after: Annotated[int, Field(ge=0, le=MOST_DAYS)] = Field(
        7, description="Days after today that are asked for."
    )
    query: dict[str, str] = Field(
        default_factory=dict, description="Further keys by DICOM keyword; a date overrules the days."
    )

    @field_validator("query")
    @classmethod
    def _known_keys(cls, value: dict[str, str]) -> dict[str, str]:
        from index.orders.upstream import is_key

        for keyword in value:
            if not is_key(keyword):
                raise ValueError(f"{keyword} is no key of a worklist query (PS3.4 Table K.6-1)")
        return value


class WorklistSettings(Section):
    """`[worklist]`: where orders come from, and how studies find theirs."""

    hl7_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="Port for HL7 v2 messages over MLLP; 0 takes a free one. None given: no HL7."
    )
    hl7_host: Host = Field("127.0.0.1", description="Address to listen on for HL7.")
    hl7_networks: tuple[IPvAnyNetwork, ...] = Field(
        (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        min_length=1,
        description="Networks that HL7 may come from.",
    )
    hl7_senders: tuple[Hl7Sender, ...] = Field(
        (), description="What is special about HL7 senders; the first that fits."
    )
    local_authority: str | None = Field(
        None,
        description="The assigning authority whose PatientIDs scanners send without an issuer; of several "
        "in PID-3 its one is taken. None given: whichever an HL7 message names.",
    )
    folder: GivenPath | None = Field(
        None, description="Folder of DICOM .wl files, of any depth, that is followed."
    )
    folder_interval: Annotated[float, Field(gt=0, le=3600)] = Field(
        2.0, description="Seconds between two looks at that folder."
    )
    match: Annotated[tuple[Literal["study-uid", "step-id", "accession"], ...], Unique] = Field(
        ("study-uid", "step-id", "accession"),
        description="The rules that match studies to orders, in the order that they are tried in.",
    )
    limit: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = Field(
        1000,
        description="Answers to one worklist query; with more it ends with A700 (out of resources).",
    )
    fill_station: bool = Field(
        False, description="Answer steps without ScheduledStationAETitle as scheduled for whoever asks."
    )
    expire_days: Annotated[int, Field(ge=0, le=MOST_DAYS)] | None = Field(
        None,
        description="Days after its date that a step leaves the worklist. None given: when it is done.",
    )
    without_mpps: Annotated[tuple[AETitle, ...], Unique] = Field(
        (),
        description="AE titles of senders without MPPS, or *: their first matched instance ends a step.",
    )
    upstream: UpstreamSettings | None = Field(None, description="Another worklist that is asked.")
