"""The conformance statement of a configuration, in Markdown, in the order of the template (PS3.2 Annex N)."""

from collections.abc import Iterator, Mapping

from pydicom._uid_dict import UID_dictionary
from pynetdicom.sop_class import _STORAGE_CLASSES

from index import (
    IMPLEMENTATION_CLASS_UID,
    MOST_REFERENCES,
    NOT_MATCHED,
    QUERY_KEYS,
    STEP_CREATED_ONLY,
    STEP_REQUIRED,
    TRANSCODE_LIMIT,
    TRANSCODED,
    WORKLIST_KEYS,
    Key,
)
from scp.association.admission import Rejection
from scp.association.application_entity import IMPLEMENTATION_VERSION_NAME
from scp.association.client import CONNECT_SECONDS, RESPONSE_SECONDS
from scp.association.contexts import VERIFICATION, is_storage
from scp.association.extended_negotiation import SUPPORTED
from scp.association.store_association import MAX_PDU
from scp.association.syntaxes import DECODABLE, RANKS, kind, preferred
from scp.conformance.audit import audit
from scp.conformance.statuses import STATUSES
from scp.conformance.tables import attribute, keyword_of, named, table
from scp.conformance.web import dicomweb
from scp.services.commitment import COMMITMENT, CommitmentService
from scp.services.find import FindService
from scp.services.mpps import MPPS_RETRIEVE, RETURNED, StepService
from scp.services.notify import ATTRIBUTES as AVAILABILITY_ATTRIBUTES
from scp.services.notify import AVAILABILITY
from scp.services.retrieve import OPERATIONS, RetrieveService
from scp.services.store import MAX_OPERATIONS
from scp.services.worklist import WORKLIST
from scp.settings.sections import Configuration, DicomSettings
from scp.upperlayer.dispatch import MESSAGE_LENGTH, operations
from scp.wire.command_set import C_CANCEL_RQ, NAMES
from scp.wire.tls import CIPHERS

PROVIDED: Mapping[str, str] = {
    VERIFICATION: "echo",
    **FindService.SERVICES,
    **RetrieveService.SERVICES,
    **StepService.SERVICES,
    **CommitmentService.SERVICES,
}
"""The SOP Classes that are served besides storage, and the service of each as [[peers]] names it."""

_KNOWN = {uid for uid, (_, kind_of_uid, *_) in UID_dictionary.items() if kind_of_uid == "SOP Class"}
STORED = tuple(sorted(uid for uid in _KNOWN | {*_STORAGE_CLASSES.values()} if is_storage(uid)))
"""The storage SOP Classes that pydicom and pynetdicom know by name; any other one is accepted too."""

# SOP Classes of which we are SCU, and what for.
USED: Mapping[str, str] = {
    "storage": "C-STORE to the destination of a C-MOVE, and by the command send",
    named(AVAILABILITY): "N-CREATE when a study is complete, to peers with notify = true",
    named(WORKLIST): "C-FIND of an upstream worklist ([worklist.upstream])",
}

_HEAD = """# DICOM conformance statement of imagingstudyd

Made by `imagingstudyd conformance` from the tables of the code and the configuration in force, in the order
of the template of PS3.2 Annex N. `scp/CONFORMANCE.md` is that of the default configuration.
"""


def statement(configuration: Configuration) -> str:
    """Return the statement of a configuration."""
    sections = (
        _overview,
        _model,
        _services,
        _query,
        _steps,
        _availability,
        dicomweb,
        _configured,
        _network,
        _statuses,
        _security,
        audit,
        _annex,
    )
    parts = [part.strip() for section in sections for part in section(configuration)]
    return "\n\n".join((_HEAD.strip(), *parts)) + "\n"


def _overview(_: Configuration) -> Iterator[str]:
    yield "## Overview\n\nA provider of storage, query/retrieve, worklist and procedure steps; no media."
    rows = [(named(uid), uid, "no", "yes", service) for uid, service in PROVIDED.items() if uid != WORKLIST]
    rows.append((named(WORKLIST), WORKLIST, "yes", "yes", "worklist"))
    rows.append((named(AVAILABILITY), AVAILABILITY, "yes", "no", ""))
    storage = (
        "Storage: every storage SOP Class, see the annex; private and unknown ones too",
        "",
        "yes",
        "yes",
    )
    yield table(("SOP Class", "UID", "SCU", "SCP", "service"), [*rows, (*storage, "store")])


def _model(configuration: Configuration) -> Iterator[str]:
    yield (
        "## Implementation model\n\nOne application entity answers and requests all associations. What it"
        " receives is kept as sent, indexed, and described by FHIR resources."
    )
    yield table(
        ("", "value"),
        [
            ("AE title", configuration.dicom.aet),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Application Context", "1.2.840.10008.3.1.1.1"),
        ],
    )


def _services(configuration: Configuration) -> Iterator[str]:
    yield "## Services as SCP"
    of_storage = ("storage", _operations("1.2.840.10008.5.1.4.1.1.2"))
    yield table(
        ("SOP Class", "operations"), [*((named(uid), _operations(uid)) for uid in PROVIDED), of_storage]
    )
    yield (
        "Level 2 (full) storage: every attribute is kept, private ones too, and sent back as it came. Storage"
        " commitment: Push Model; an instance is committed where its object is there and whole. The report"
        f" ({named(COMMITMENT)}, N-EVENT-REPORT) comes on the same association, or on one of ours."
    )
    yield "### Services as SCU"
    yield table(("SOP Class", "use"), USED.items())
    yield "### Transfer syntaxes that are accepted, the preferred one first"
    yield _syntaxes(configuration.dicom)
    decodable = ", ".join(named(uid) for uid in preferred(DECODABLE))
    yield f"Services that read data sets accept: {decodable}. Verification accepts any."
    made = ", ".join(map(named, TRANSCODED))
    yield (
        "### Transfer syntaxes that are proposed\n\nTo send an instance, its stored transfer syntax in a"
        f" context of its own, and uncompressed ones in another: {', '.join(map(named, TRANSCODED[:2]))}."
        f" What a receiver does not take as stored is sent as one of: {made} (up to {TRANSCODE_LIMIT} bytes)."
    )


def _operations(uid: str) -> str:
    fields = operations(uid, {one: service for one, service in PROVIDED.items() if one != VERIFICATION})
    # A SOP Class of the retrieve service has one of its operations.
    mine = fields & {OPERATIONS[uid], C_CANCEL_RQ} if uid in OPERATIONS else fields
    return ", ".join(NAMES[field] for field in sorted(mine))


def _syntaxes(dicom: DicomSettings) -> str:
    ranked = preferred(RANKS, dicom.transfer_syntaxes)
    rows = [(number, named(uid), uid, kind(uid)) for number, uid in enumerate(ranked, start=1)]
    if not dicom.transfer_syntaxes:
        rows.append((len(rows) + 1, "any other", "", "unknown"))
    return table(("order", "transfer syntax", "UID", "kind"), rows)


def _query(_: Configuration) -> Iterator[str]:
    yield (
        "### Query keys\n\nMatching: U unique, R required, O optional, - none: it is returned only."
        " Single values, wildcards, ranges of dates and times, lists of UIDs, sequences; names without regard"
        " to case. A key that is not listed is answered empty, with FF01. An empty level above is answered"
        " A900 unless relational queries are negotiated."
    )
    for level, keys in QUERY_KEYS.items():
        yield f"#### Level {level}"
        yield _keys(keys)
    yield "#### Modality Worklist"
    yield _keys(WORKLIST_KEYS)


def _keys(keys: Mapping[str, Key]) -> str:
    return table(("attribute", "tag", "VR", "matching", "return"), _rows(keys))


def _rows(keys: Mapping[str, Key], indent: str = "") -> Iterator[tuple[str, ...]]:
    for key in sorted(keys.values(), key=lambda key: key.tag):
        name, tag = attribute(key.keyword)
        yield indent + name, tag, key.vr, key.matching or NOT_MATCHED, key.returned
        yield from _rows(key.items, f"{indent}>")


def _steps(_: Configuration) -> Iterator[str]:
    yield (
        "### Modality Performed Procedure Step\n\nEvery attribute is kept. These must be in an N-CREATE, with"
        " a value; for an attribute of items its sequence is named first."
    )
    required = [
        (" > ".join(attribute(one)[0] for one in path), attribute(path[-1])[1]) for path in STEP_REQUIRED
    ]
    yield table(("attribute", "tag"), required)
    yield "N-SET may change all but these, which are ignored there:"
    yield table(("attribute", "tag"), [attribute(keyword_of(tag)) for tag in sorted(STEP_CREATED_ONLY)])
    yield f"N-GET ({named(MPPS_RETRIEVE)}) returns these, empty where a step has none, and all others of it:"
    yield table(("attribute", "tag"), map(attribute, RETURNED))


def _availability(configuration: Configuration) -> Iterator[str]:
    quiet = configuration.publish.quiet
    by_silence = f", or when nothing has come for {quiet:g} s" if quiet else ""
    yield (
        "### Instance Availability Notification\n\nSent once for each study: when every instance that its"
        " procedure steps name is here, when a storage commitment has covered it, when its order is completed"
        f"{by_silence}. One N-CREATE for each performed procedure step of the study that made instances, and"
        f" one for its other instances; of more than {MOST_REFERENCES} instances several. Repeated until it"
        " is answered 0000, 0111 or a warning; the SOP Instance UID is then the same. Attributes:"
    )
    rows = [
        (">" * (len(path) - 1) + attribute(path[-1])[0], attribute(path[-1])[1], value)
        for path, value in AVAILABILITY_ATTRIBUTES.items()
    ]
    yield table(("attribute", "tag", "value"), rows)


def _configured(configuration: Configuration) -> Iterator[str]:
    dicom, tls = configuration.dicom, configuration.dicom.tls
    rows: list[tuple[str, object]] = []
    if tls is None or tls.plain:
        rows.append(("DICOM without TLS", f"{dicom.host}, port {dicom.port}"))
    if tls is not None:
        rows.append(("DICOM over TLS", f"{tls.host or dicom.host}, port {tls.port}"))
    rows += [
        ("called AE titles", ", ".join(dicom.called_aets) or "any"),
        ("callers that are no peers may use", _UNKNOWN[dicom.unknown_callers]),
        ("peers may use", "the services of their entry; every service where it names none"),
        ("addresses that may call", ", ".join(map(str, dicom.networks)) or "any"),
    ]
    yield "## Configuration"
    yield table(("", "value"), rows)
    yield "### Peers"
    if not configuration.peers:
        yield "None."
        return
    peers = [
        (
            peer.aet,
            f"{peer.host}:{peer.port}" if peer.host and peer.port else peer.host or "",
            "yes" if peer.tls else "no",
            ", ".join(peer.services) if peer.services is not None else "all",
            ", ".join(peer.transfer_syntaxes) or "as above",
            "yes" if peer.notify else "no",
        )
        for peer in configuration.peers
    ]
    yield table(("AE title", "address", "TLS", "services", "transfer syntaxes", "notified"), peers)


_UNKNOWN = {"store": "echo and store", "all": "every service", "reject": "nothing: they are rejected"}


def _network(configuration: Configuration) -> Iterator[str]:
    dicom, limits = configuration.dicom, configuration.limits
    yield "## Network communication details"
    yield table(
        ("", "value"),
        [
            ("associations at one time", limits.associations),
            ("associations of one address", limits.associations_per_address or "no limit"),
            ("asynchronous operations window", f"{MAX_OPERATIONS} invoked, 1 performed"),
            ("largest PDU that we receive, bytes", dicom.max_pdu),
            ("the same on associations of ours", f"{dicom.max_pdu}; {MAX_PDU} where we send instances"),
            ("largest object, bytes", limits.object_size),
            ("largest data set of other messages, bytes", MESSAGE_LENGTH),
            ("answers to one query", limits.answers),
            ("answers to one worklist query", configuration.worklist.limit),
            ("for the association request, s", dicom.timeouts.request),
            ("for a PDU that has begun, s", dicom.timeouts.pdu),
            ("idle association, s", dicom.timeouts.idle),
            ("to connect to a peer, s", CONNECT_SECONDS),
            ("for a response of a peer, s", RESPONSE_SECONDS),
        ],
    )
    yield "### Rejections\n\nResult, source and reason are those of PS3.8 Table 9-21."
    yield table(
        ("result/source/reason", "when"),
        [("/".join(map(str, one.value)), _REJECTED[one]) for one in Rejection],
    )
    yield "### Extended negotiation\n\nPS3.4 Section C.5.1.1, by service; what is not agreed on is off."
    (options,) = SUPPORTED.values()
    yield table(
        ("byte", "option", "supported"),
        [
            (number, option, "yes" if supported else "no")
            for number, (option, supported) in enumerate(zip(_OPTIONS, options, strict=True), start=1)
        ],
    )
    yield (
        "SCP/SCU role selection: the requester of a C-GET is the SCP of storage (PS3.7 Section D.3.3.4). User"
        " identity: user names, and user names with passcodes, where [dicom] users is set; positive responses"
        " where they are asked for."
    )


_REJECTED = {
    Rejection.ADDRESS: "the address may not call",
    Rejection.CALLING_AET: "the caller is no peer, and others are rejected",
    Rejection.CALLED_AET: "the called AE title is not one of ours",
    Rejection.USER_IDENTITY: "the user identity is missing or wrong",
    Rejection.LOCAL_LIMIT: "too many associations",
}
_OPTIONS = (
    "relational queries",
    "combined matching of date and time",
    "fuzzy matching of names: without accents",
    "time zone adjustment",
    "conversion of enhanced multi-frame images",
)


def _statuses(_: Configuration) -> Iterator[str]:
    yield "## Statuses"
    for operation, meanings in STATUSES.items():
        yield f"### {operation}"
        yield table(("status", "when"), [(f"{code:04X}", when) for code, when in sorted(meanings.items())])


def _security(configuration: Configuration) -> Iterator[str]:
    tls = configuration.dicom.tls
    yield "## Character sets\n\nEvery defined term is read, with and without code extensions."
    yield (
        "Answers have the character set of the peer's entry in [[peers]], else that of the query or order,"
        " else ISO_IR 192 where that cannot hold a text."
    )
    yield "## Security\n\nBCP 195 TLS secure transport connection profile (PS3.15 Annex B)."
    if tls is None:
        yield "TLS is not configured."
        return
    yield table(
        ("", "value"),
        [
            ("versions", f"{tls.minimum_version} and later"),
            ("cipher suites of TLS 1.2", ", ".join(CIPHERS)),
            ("certificates of callers", tls.client_certificates),
            ("associations of ours", "over TLS to peers with tls = true; our certificate is sent"),
        ],
    )


def _annex(_: Configuration) -> Iterator[str]:
    yield "## Media\n\nNone: no media storage application profile is supported."
    yield "## Annex: storage SOP Classes\n\nBesides these: every one that is newer, retired or private."
    yield table(("SOP Class", "UID"), [(named(uid), uid) for uid in STORED])
