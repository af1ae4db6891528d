"""The part of `[http]` that says who may do what."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, IPvAnyNetwork

from index.publication.subscriptions.endpoints import check_endpoint
from index.settings import Section, Unique
from index.web.rights import Right

# RFC 9110 Section 5.1.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 952 and RFC 4291, as in a Host header without its port.
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")


def _check_header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("allowed is the name of a header, as X-Remote-User")
    return value


def _check_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("allowed is a name or an address without a port, as pacs.example.org or [::1]")
    return value.lower()


def _check_origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != value or "*" in value:
        raise ValueError("allowed is scheme://host or scheme://host:port, as https://viewer.example.org")
    return value.lower()


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("allowed is http://host/path or https://host/path")
    return value.rstrip("/")


def _check_endpoint(value: str) -> str:
    check_endpoint(value)
    if urlsplit(value).query:
        raise ValueError("is a prefix of addresses, and has no query")
    return value


Rights = Annotated[tuple[Right, ...], Unique]


class ProxySettings(Section):
    """`[http.proxy]`: a reverse proxy that has checked who calls, and says so in a header of its own."""

    addresses: tuple[IPvAnyNetwork, ...] = Field(
        min_length=1, description="Where it calls from. Its requests have the rights below, and no others."
    )
    header: Annotated[str, AfterValidator(_check_header)] = Field(
        description="The header with the name of who calls. It must replace what a caller sends in it."
    )
    rights: Rights = Field((Right.READ,), description="What those that it names may do.")


class AccessSettings(Section):
    """Who may do what over HTTP."""

    local: Literal["read", "all", "nothing"] = Field(
        "read", description="What a caller on this machine may do without a token."
    )
    hosts: Annotated[tuple[Annotated[str, AfterValidator(_check_host)], ...], Unique] = Field(
        (),
        description="Names in a Host header, besides this machine's own, that requests may come for. Others"
        " are refused: a page elsewhere must not read patients through a browser here.",
    )
    public_url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        None, description="Where others reach this server, as https://pacs.example.org/imaging."
    )
    tokens: Path | None = Field(
        None, description="File of the callers that have a token. `imagingstudyd token NAME` writes it."
    )
    trust_network: bool = Field(
        False,
        description="Whether every caller counts as one on this machine. Then whoever reaches the port may do"
        " what local says.",
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], Unique] = Field(
        (), description="Origins whose pages may read through a browser, as https://viewer.example.org."
    )
    subscriptions: Annotated[tuple[Annotated[str, AfterValidator(_check_endpoint)], ...], Unique] = Field(
        (),
        description="Addresses below which notifications of FHIR Subscriptions may be sent, as"
        " https://ehr.example.org/hooks. None given: nobody can subscribe, since this machine would send"
        " requests wherever they say.",
    )
    certificate_rights: Rights = Field(
        (Right.READ,), description="What callers with a certificate may do, where [http.tls] asks for one."
    )
    proxy: ProxySettings | None = None
