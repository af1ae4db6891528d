"""`[worklist]`: the sources of orders, and the worklist's answers."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import Field, IPvAnyNetwork, field_validator

from index.orders.hl7.settings import Hl7Sender
from index.orders.matching.rules import DEFAULT_RULES, RuleName
from index.settings import MOST_ANSWERS, MOST_DAYS, AETitle, GivenPath, Host, Section, Unique


class UpstreamSettings(Section):
    """`[worklist.upstream]`: another worklist that is queried for its orders."""

    peer: AETitle = Field(description="AE title of the upstream worklist; [[peers]] has its host and port.")
    interval: Annotated[float, Field(gt=0, le=86400)] = Field(60.0, description="Seconds between queries.")
    days_before: Annotated[int, Field(ge=0, le=MOST_DAYS)] = Field(
        1, description="Days before today that are queried."
    )
    days_after: Annotated[int, Field(ge=0, le=MOST_DAYS)] = Field(
        7, description="Days after today that are queried."
    )
    query: dict[str, str] = Field(
        default_factory=dict, description="Further keys by DICOM keyword; a date overrules the days."
    )

    @field_validator("query")
    @classmethod
    def _known_keys(cls, value: dict[str, str]) -> dict[str, str]:
        from index.query.worklist_keys import is_key

        for keyword in value:
            if not is_key(keyword):
                raise ValueError(f"{keyword} is no key of a worklist query (PS3.4 Table K.6-1)")
        return value


class WorklistSettings(Section):
    """`[worklist]`: the sources of orders, the match of studies to orders, and the worklist's answers."""

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
        (), description="Exceptions for HL7 senders; the first entry that fits counts."
    )
    local_authority: str | None = Field(
        None,
        description="The assigning authority whose PatientIDs scanners send without an issuer; its PatientID "
        "in PID-3 is preferred. None given: the authority that an HL7 message names.",
    )
    folder: GivenPath | None = Field(
        None, description="Folder whose DICOM .wl files, also in subfolders, are orders."
    )
    folder_interval: Annotated[float, Field(gt=0, le=3600)] = Field(
        2.0, description="Seconds between two readings of that folder."
    )
    match: Annotated[tuple[RuleName, ...], Unique] = Field(
        DEFAULT_RULES,
        description="The rules that match studies to orders, in the order in which they are tried.",
    )
    limit: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = Field(
        1000,
        description="Answers to one worklist query; with more it ends with A700 (out of resources).",
    )
    fill_station: bool = Field(
        False, description="Answer steps without ScheduledStationAETitle as scheduled for the caller."
    )
    expire_days: Annotated[int, Field(ge=0, le=MOST_DAYS)] | None = Field(
        None,
        description="Days after its date that a step leaves the worklist. None given: when it is done.",
    )
    without_mpps: Annotated[tuple[AETitle, ...], Unique] = Field(
        (),
        description="AE titles of senders without MPPS, or *: their first matched instance ends a step.",
    )
    upstream: UpstreamSettings | None = Field(None, description="Another worklist that is queried.")
