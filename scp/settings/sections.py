"""The sections of the configuration, as pydantic models. Those of the index come from its facade."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, IPvAnyNetwork, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from index import (
    AETitle,
    FhirSettings,
    Host,
    IndexSettings,
    PublishSettings,
    RetentionSettings,
    RouteSettings,
    Section,
    StorageSettings,
    Unique,
    WorklistSettings,
)
from scp.settings.audit import AuditSettings
from scp.settings.http import HttpSettings
from scp.settings.tls import TlsSettings
from scp.settings.users import Users
from scp.settings.values import Port, Seconds, files_are_checked

ENVIRONMENT_PREFIX = "IMAGINGSTUDYD_"
DEFAULT_DATA = Path("imagingstudyd-data")

# The services that a peer may use; verification comes with every admission (PS3.4 Annex A).
ServiceName = Literal["echo", "store", "worklist", "mpps", "commitment", "query", "retrieve"]


def _is_transfer_syntax(value: Any) -> Any:
    """Refuse what is not a UID, and UIDs of other things (PS3.6 Table A-1); private ones are allowed."""
    if value not in get_args(SyntaxKind):
        from pydicom.config import IGNORE
        from pydicom.uid import UID

        uid = UID(str(value), IGNORE)
        if not uid.is_valid or uid.type not in ("", "Transfer Syntax"):
            raise ValueError(
                f"is neither the UID of a transfer syntax nor one of {', '.join(get_args(SyntaxKind))}"
            )
    return value


# A kind of transfer syntax (scp/association/syntaxes.py), or one by its UID (PS3.5 Section 9.1).
SyntaxKind = Literal[
    "explicit-little-endian",
    "implicit-little-endian",
    "lossless",
    "deflated",
    "explicit-big-endian",
    "lossy",
    "unknown",
]
TransferSyntax = Annotated[SyntaxKind | str, BeforeValidator(_is_transfer_syntax)]


class ConfigurationError(Exception):
    """Everything that is wrong with the configuration, one line for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Timeouts(Section):
    """`[dicom.timeouts]`, in seconds."""

    request: Seconds = Field(
        30, description="From the connection to the whole A-ASSOCIATE-RQ (ARTIM, PS3.8 9.1.5)."
    )
    pdu: Seconds = Field(30, description="From a PDU's first byte to its last.")
    idle: Seconds = Field(1800, description="Without any PDU on an established association.")
    drain: Seconds = Field(20, description="For running operations when the daemon stops.")


class DicomSettings(Section):
    """`[dicom]`: the DICOM listener."""

    aet: AETitle = Field("IMAGINGSTUDYD", description="Our own AE title.")
    host: Host = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104  scanners are on other hosts
    port: Port = Field(11112, description="Port to listen on; 0 takes a free one.")
    called_aets: Annotated[tuple[AETitle, ...], Unique] = Field(
        (), description="AE titles that callers may call us by (reject 1/1/7). None given: any."
    )
    unknown_callers: Literal["store", "all", "reject"] = Field(
        "store",
        description="What callers without an entry in [[peers]] may do: echo and store, all, nothing.",
    )
    networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Addresses that may call at all (others: reject 1/1/1), as 10.1.0.0/16. None given: any.",
    )
    transfer_syntaxes: Annotated[tuple[TransferSyntax, ...], Unique] = Field(
        (),
        description="The transfer syntaxes that are accepted, the preferred one first: kinds or UIDs."
        " None given: all, uncompressed ones first, so that no sender compresses because of us.",
    )
    users: Path | None = Field(
        None, description="File of user names and passcodes for user identity negotiation (PS3.7 D.3.3.7)."
    )
    user_identity: Literal["optional", "required"] = Field(
        "optional",
        description="With users: whether callers must send a name. A wrong one: reject 1/2/1.",
    )
    max_pdu: Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)] = Field(
        1024 * 1024, description="The largest P-DATA-TF PDU that we offer to receive, in bytes."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)
    tls: TlsSettings | None = Field(None, description="DICOM over TLS.")

    @field_validator("users")
    @classmethod
    def _check_users(cls, value: Path | None) -> Path | None:
        if files_are_checked.get() and value is not None:
            Users(value)
        return value

    @field_validator("user_identity")
    @classmethod
    def _needs_users(cls, value: str, info: ValidationInfo) -> str:
        if value == "required" and info.data.get("users", ...) is None:
            raise ValueError("needs users, the file of user names and passcodes")
        return value


class Peer(Section):
    """One of `[[peers]]`: a known application entity."""

    aet: AETitle = Field(description="Its AE title.")
    host: Host | None = Field(None, description="Its address, to call it and to recognize it.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="The port that it listens on."
    )
    tls: bool = Field(
        False,
        description="Whether that port takes TLS. Then [dicom.tls] is needed, with ca: the authorities that "
        "sign its certificate; ours is sent too.",
    )
    charset: str | None = Field(
        None,
        description="SpecificCharacterSet of answers to its queries, as ISO_IR 100; UTF-8 (ISO_IR 192) where "
        "that cannot hold a text. None given: that of the order, or of a query for images.",
    )
    ignore_accents: bool = Field(
        False, description="Match names of its queries without accents: Muller finds Müller."
    )
    networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Addresses that it may call from, besides host, as 10.1.0.0/16. Neither given: any."
    )
    notify: bool = Field(
        False,
        description="Whether it is sent an Instance Availability Notification (PS3.4 Annex R) of each study"
        " that is complete ([publish] quiet). Then host and port are needed.",
    )
    services: Annotated[tuple[ServiceName, ...], Unique] | None = Field(
        None, description="What it may use; echo always. Default: every service."
    )
    transfer_syntaxes: Annotated[tuple[TransferSyntax, ...], Unique] = Field(
        (), description="As in [dicom], for this peer. None given: as [dicom] has it."
    )
    associations: Annotated[int, Field(ge=0)] = Field(
        0, description="Its associations at one time; one more is rejected 2/3/2. 0: no limit of its own."
    )
    object_size: Annotated[int, Field(ge=1024)] | None = Field(
        None, description="The largest object that is kept from it, in bytes. Default: as [limits] has it."
    )

    @field_validator("charset")
    @classmethod
    def _check_charset(cls, value: str | None) -> str | None:
        from index import is_charset

        if value is not None and not is_charset(value):
            raise ValueError(f"{value} is not a defined term of SpecificCharacterSet (PS3.3 C.12.1.1.2)")
        return value


class LimitsSettings(Section):
    """`[limits]`: limits that an installation may want to change."""

    associations: Annotated[int, Field(ge=1)] = Field(
        600,
        description="Associations at one time; one more is rejected as transient, local limit (2/3/2)."
        " Where there are [[peers]], a tenth is kept for them.",
    )
    associations_per_address: Annotated[int, Field(ge=0)] = Field(
        0, description="The same for one address; 0: no limit, since routers send for many."
    )
    object_size: Annotated[int, Field(ge=1024)] = Field(
        16 * 1024**3, description="The largest object that is kept, in bytes; a larger one is answered A700."
    )
    answers: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="Answers to one query for patients, studies, series or instances; with more it ends with"
        " A700 (out of resources).",
    )


class LogSettings(Section):
    """`[log]`: what is logged on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is logged."
    )
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON lines elsewhere."
    )


class Configuration(BaseSettings):
    """The whole configuration, validated and frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    dicom: DicomSettings = Field(default_factory=DicomSettings)
    peers: tuple[Peer, ...] = ()
    routes: tuple[RouteSettings, ...] = ()
    storage: StorageSettings = Field(default_factory=StorageSettings)
    index: IndexSettings = Field(default_factory=IndexSettings)
    fhir: FhirSettings = Field(default_factory=FhirSettings)
    publish: PublishSettings = Field(default_factory=PublishSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    worklist: WorklistSettings = Field(default_factory=WorklistSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    limits: LimitsSettings = Field(default_factory=LimitsSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _dicomweb_of_our_own(self) -> Self:
        """Let resources lead to our DICOMweb, where others reach it and nothing else is said."""
        if self.http.enabled and self.http.public_url and not self.fhir.base_url:
            base_url = f"{self.http.public_url}/dicom-web"
            object.__setattr__(self, "fhir", self.fhir.model_copy(update={"base_url": base_url}))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let flags overrule the environment; scp/settings/file.py adds the file below them."""
        return (init_settings, env_settings)

    def find_peer(self, aet: str) -> Peer | None:
        """Return the peer of an AE title, or None."""
        return next((peer for peer in self.peers if peer.aet.strip() == aet.strip()), None)

    @property
    def data(self) -> Path:
        """The data directory (DESIGN: `$STATE_DIRECTORY`, or else ./imagingstudyd-data)."""
        if self.storage.path is not None:
            return self.storage.path
        # systemd gives a list separated by colons; the first is ours.
        state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        return Path(state) if state else DEFAULT_DATA
