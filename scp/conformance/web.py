"""DICOMweb's section of the statement (PS3.2 Annex N.6, PS3.18)."""

from collections.abc import Iterator

from scp.conformance.tables import table
from scp.settings.sections import Configuration

PREFIX = "/dicom-web"
_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_FRAMES = _INSTANCE + "/frames/{frames}"
_LEVELS = (_STUDY, _SERIES, _INSTANCE)

RESOURCES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Search (QIDO-RS) for studies", "GET", "read", ("/studies",)),
    ("Search for series", "GET", "read", ("/series", f"{_STUDY}/series")),
    (
        "Search for instances",
        "GET",
        "read",
        ("/instances", f"{_STUDY}/instances", f"{_SERIES}/instances"),
    ),
    ("Retrieve (WADO-RS) objects", "GET", "read", _LEVELS),
    ("Retrieve metadata", "GET", "read", tuple(f"{one}/metadata" for one in _LEVELS)),
    ("Retrieve frames", "GET", "read", (_FRAMES,)),
    ("Retrieve bulk data", "GET", "read", (_INSTANCE + "/bulkdata/{path:path}",)),
    ("Retrieve rendered", "GET", "read", (f"{_INSTANCE}/rendered", f"{_FRAMES}/rendered")),
    ("Retrieve thumbnails", "GET", "read", tuple(f"{one}/thumbnail" for one in (*_LEVELS, _FRAMES))),
    ("WADO-URI", "GET", "read", ("", "/", "/wado")),
    ("Store (STOW-RS)", "POST", "write", ("/studies", _STUDY)),
    ("Delete", "DELETE", "operate", _LEVELS),
)
"""Transaction, method, the right that it needs, and its resources below the prefix."""

_MEDIA_TYPES = (
    ("search, metadata", "application/dicom+json; multipart/related; type=application/dicom+xml"),
    ("objects", "multipart/related; type=application/dicom; application/dicom for one instance"),
    (
        "frames, bulk data",
        (
            "as stored by the media type of their transfer syntax (Table 8.7.3-5); application/octet-stream,"
            " decoded or by transfer-syntax=* as stored; one alone without multipart too"
        ),
    ),
    ("rendered, thumbnails", "image/jpeg, image/png, image/gif"),
    ("store", "multipart/related; type=application/dicom; application/dicom"),
)


def dicomweb(configuration: Configuration) -> Iterator[str]:
    """Yield the parts of the section."""
    if not configuration.http.enabled:
        return
    yield f"## DICOMweb (PS3.18)\n\nOrigin server of these resources below `{PREFIX}`:"
    rows = [
        (name, method, ", ".join(f"`{one}`" for one in resources if one) or f"`{PREFIX}`", right)
        for name, method, right, resources in RESOURCES
    ]
    yield table(("transaction", "method", "resources", "right"), rows)
    yield table(("what", "media types"), _MEDIA_TYPES)
    yield (
        "Objects are sent in the stored transfer syntax by its name or transfer-syntax=*, else in Explicit VR"
        " Little Endian, where a decoder is installed.\n\n"
        "Search: the keys of the query service, all matching as there; `fuzzymatching` (words of a name in"
        " their order, without accents), `multiplevaluematching`, `includefield`, `limit`, `offset`. Results"
        " have the attributes of Tables 10.6.3-3 to 10.6.3-5. `emptyvaluematching` is answered with a"
        " warning. Not supported: the worklist and storage commitment services, presentation states,"
        " metadata in a request to store, rendered studies and series.\n\n"
        "Store: an instance is kept as by C-STORE, and fails with the same statuses, as Failure Reason."
        " Warning Reason B007: the data set is truncated, or in another encoding than it says."
    )
