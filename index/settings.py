"""Sections of the configuration that belong to the index. scp/settings/sections.py adds its own."""

import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

# A century: more is a mistake.
MOST_DAYS = 36500
# Answers to one query: more than a scanner can show.
MOST_ANSWERS = 1_000_000

# RFC 1035 Section 2.3.4, in the notation with dots.
LONGEST_HOST = 253

# An absolute path; a bucket's name, then a prefix of its keys.
_FOLDER_URL = re.compile(r"file:///[^/?#][^?#]*")
_BUCKET_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()/-]*)?")

Several = TypeVar("Several", bound=tuple[Any, ...])


def _is_title(value: str) -> str:
    if not value.strip():
        raise ValueError("an AE title has at least one character other than a space (PS3.5 Table 6.2-1)")
    return value


def _is_host(value: str) -> str:
    try:
        value.encode("idna")  # as for getaddrinfo(3), which takes an empty name for every address
        is_valid = bool(value) and len(value) <= LONGEST_HOST and value.isprintable() and " " not in value
    except UnicodeError:
        is_valid = False
    if not is_valid:
        raise ValueError("is not a host name or address")
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
# A list without repeated values.
Unique = AfterValidator(_is_unique)
# An empty path would be the working directory of the daemon.
GivenPath = Annotated[Path, BeforeValidator(_is_given)]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are errors; values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class StorageSettings(Section):
    """`[storage]`: where objects are kept and how safely."""

    path: GivenPath | None = Field(
        None, description="Data directory. Default: $STATE_DIRECTORY, or else ./imagingstudyd-data."
    )
    url: str | None = Field(
        None,
        description="Where objects are kept: s3://bucket/prefix, or file:///folder, which nodes may share."
        " Default: objects/ of the data directory. The environment has credentials (AWS_ACCESS_KEY_ID,"
        " AWS_SECRET_ACCESS_KEY).",
    )
    endpoint: str | None = Field(None, description="With s3: address of a service other than AWS.")
    region: str | None = Field(None, description="With s3: the bucket's region. Default: us-east-1.")
    acknowledge: Literal["store", "journal"] | None = Field(
        None,
        description="With url: an instance is acknowledged when the store has it, or when this machine's"
        " journal has it, which is faster: until it is uploaded a broken disk loses it. Default: store.",
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

    def at(self, url: str) -> "StorageSettings":
        """Return the settings of another store; `data`: of the data directory. Raises ValidationError."""
        place = {"endpoint": self.endpoint, "region": self.region} if url.startswith("s3:") else {}
        given: dict[str, Any] = {} if url == "data" else {"url": url, **place}
        return StorageSettings(durability=self.durability, **given)

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if _FOLDER_URL.fullmatch(value):
            return value.rstrip("/")
        if not _BUCKET_URL.fullmatch(value):
            raise ValueError(
                "allowed is s3://bucket/prefix, without credentials, which the environment has, or file:///folder"
            )
        if find_spec("obstore") is None:
            raise ValueError("needs obstore: pip install 'imagingstudyd[s3]'")
        return value

    @field_validator("endpoint", "region", "acknowledge")
    @classmethod
    def _needs_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        # A url with a fault of its own is not among the data.
        url = info.data.get("url", "s3:") or ""
        if value is not None and not url:
            raise ValueError("needs storage.url")
        if value is not None and info.field_name != "acknowledge" and not url.startswith("s3:"):
            raise ValueError("needs storage.url = s3://...")
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
    """`[publish]`: how often a growing study is written again, and how long the change feed is."""

    interval: Annotated[float, Field(ge=0, le=86400)] = Field(
        0.5, description="Seconds between two rewrites of a study that grows, at least."
    )
    backoff: Annotated[float, Field(ge=0)] = Field(
        20.0, description="The same as a multiple of what the study's last rewrite took."
    )
    quiet: Annotated[float, Field(ge=0, le=86400 * MOST_DAYS)] = Field(
        600.0,
        description="Seconds without anything new after which a study is said to be complete, where nothing"
        " else says so before (MPPS, a storage commitment, its order). 0: never by that.",
    )
    keep_changes: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="How many numbers of the change feed are kept; older entries are deleted once an hour."
        " None: all.",
    )
    directory: bool = Field(
        True,
        description="Whether resources are written as files below fhir/ too. Each data directory has its own"
        " files; they follow the change feed, also after the daemon was down.",
    )
