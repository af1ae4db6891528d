"""`[[publish.targets]]`: the FHIR servers that resources are published to."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from index.imagingstudy.rules import check_address
from index.imagingstudy.settings import FhirVersion
from index.settings import GivenPath, Section, Unique
from index.settings import PublishSettings as PublicationSettings

# FHIR versions by the releases that a CapabilityStatement names. Of R4B (4.3), what we write is that of R4.
RELEASES = {"1.0": "dstu2", "4.0": "r4", "4.3": "r4", "5.0": "r5"}

# Resources besides patients of which a server may be the master.
LookedUp = Literal[
    "Practitioner", "Organization", "Location", "ServiceRequest", "DiagnosticOrder", "Endpoint"
]

# What each kind of authorization needs.
_NEEDED = {
    "none": (),
    "basic": ("client", "secret"),
    "bearer": ("secret",),
    "client-credentials": ("client", "secret", "token_url"),
    "smart-backend": ("client", "signing_key", "token_url"),
}


class TargetSettings(Section):
    """One of `[[publish.targets]]`: a FHIR server, and how resources are written to it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = Field(
        description="What it is called in commands, logs and metrics. Another name is another target: it is"
        " filled from the beginning."
    )
    url: str = Field(description="The base address of the server, as https://server.example/fhir.")
    version: FhirVersion = Field("r4", description="The FHIR version that it takes.")
    method: Literal["transaction", "resources", "webhook"] = Field(
        "transaction",
        description="transaction: one Bundle for a study and all that it refers to. resources: one after the"
        " other, for servers without transactions. webhook: no FHIR server; url is told of each change.",
    )
    payload: Literal["id", "resource"] = Field(
        "id", description="What a webhook is told: which study has changed, or also its ImagingStudy."
    )
    write: Literal["put", "conditional"] = Field(
        "put",
        description="put: resources have the ids that they have here. conditional: the server gives ids;"
        " resources are found by their identifiers.",
    )
    patients: Literal["own", "look-up"] = Field(
        "own",
        description="own: patients are written. look-up: the server is their master; they are found by"
        " identifier.",
    )
    unknown_patients: Literal["hold", "logical"] = Field(
        "hold",
        description="With look-up, while the server does not have the patient: hold the study back, or send"
        " it with a reference by identifier alone.",
    )
    look_up: Annotated[tuple[LookedUp, ...], Unique] = Field(
        (),
        description="Other resources that are found and never written, as Practitioner. Unknown ones are"
        " referred to by identifier and name alone.",
    )
    concurrency: Annotated[int, Field(ge=1, le=16)] = Field(
        4, description="Studies that are sent at one time."
    )
    interval: Annotated[float, Field(ge=0, le=3600)] = Field(
        5.0,
        description="Seconds between two times that a study is sent while its association goes on, at least.",
    )
    connect_timeout: Annotated[float, Field(gt=0, le=600)] = Field(
        10.0, description="Seconds until it has accepted a connection."
    )
    timeout: Annotated[float, Field(gt=0, le=3600)] = Field(
        60.0, description="Seconds until an answer is complete."
    )
    authorization: Literal["none", "basic", "bearer", "client-credentials", "smart-backend"] = Field(
        "none",
        description="How we are known there. client-credentials: OAuth 2 (RFC 6749 Section 4.4);"
        " smart-backend: the same with a signed JWT (SMART Backend Services).",
    )
    client: str = Field("", description="User name of basic, or client id.")
    secret: SecretStr | None = Field(
        None, description="Password, bearer token, client secret, or key of a webhook's signature."
    )
    secret_file: GivenPath | None = Field(
        None,
        description="The same in a file, which is read again when it changes; the name of a credential"
        " (systemd's LoadCredential=) without a folder.",
    )
    signing_key: GivenPath | None = Field(
        None, description="Private key of smart-backend: PEM or JWK, RSA or EC; or the name of a credential."
    )
    token_url: str = Field("", description="Where tokens are asked for.")
    scope: str = Field("", description="Scope of the tokens, as system/*.write.")
    ca: GivenPath | None = Field(
        None, description="The authorities that sign the server's certificate, in PEM. None: the system's."
    )
    certificate: GivenPath | None = Field(
        None, description="Our certificate with its key, in PEM, where the server wants one."
    )
    proxy: str = Field(
        "", description="HTTP proxy on the way there. Variables like HTTPS_PROXY do not count."
    )

    proxy_secret_file: GivenPath | None = Field(
        None, description="user:password for the proxy, in a file; or the name of a credential."
    )

    @field_validator("url", "token_url", "proxy")
    @classmethod
    def _check_address(cls, value: str, info: ValidationInfo) -> str:
        if "@" in value.partition("://")[2].partition("/")[0]:
            place = "proxy_secret_file" if info.field_name == "proxy" else "client and secret"
            raise ValueError(f"has a user name, which belongs into {place}")
        if value:
            check_address(value)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_together(self) -> "TargetSettings":
        for key in _NEEDED[self.authorization]:
            if not getattr(self, key) and not (key == "secret" and self.secret_file):
                raise ValueError(f"authorization = {self.authorization} needs {key}")
        if self.secret and self.secret_file:
            raise ValueError("secret and secret_file exclude each other")
        if self.version == "dstu2" and (self.unknown_patients == "logical" or self.look_up):
            raise ValueError(
                "references by identifier alone, which unknown_patients or look_up ask for,"
                " are not known in dstu2"
            )
        return self

    @property
    def server(self) -> tuple[str, str, int | None, str]:
        """What tells servers apart: scheme, host, port and path."""
        parts = urlsplit(self.url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return parts.scheme, (parts.hostname or "").lower(), port, parts.path

    @property
    def found_types(self) -> frozenset[str]:
        """The types of resources that are found there and never written."""
        return frozenset((*self.look_up, *(("Patient",) if self.patients == "look-up" else ())))


class PublishSettings(PublicationSettings):
    """`[publish]`: how often a growing study is written again, and how long the change feed is."""

    targets: tuple[TargetSettings, ...] = ()


def credential(path: Path) -> Path:
    """Return the path of a file; a name without a folder is that of a credential, where there is one."""
    import os

    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    there = Path(folder) / path if folder and len(path.parts) == 1 else path
    return there if there.exists() else path
