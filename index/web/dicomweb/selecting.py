"""Which instances a URL names, and in which transfer syntax a user agent takes them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from index.dicom.transcoding import EXPLICIT_LITTLE, TRANSCODED
from index.dicom.uids import is_uid
from index.query.retrieve_keys import RetrieveKeys
from index.web.dicomweb.formats.frames import can_decode
from index.web.dicomweb.formats.media_types import ANY_SYNTAX, DICOM, MediaType
from index.web.dicomweb.responses import BAD_REQUEST, NOT_FOUND, Refused

if TYPE_CHECKING:
    from index.query.retrieval import InstanceSelection, Retrieval
    from index.records import StoredInstance

_UIDS = ("study", "series", "instance")


def uids_of(path: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the UIDs of a path, from the study down. Raises Refused where one is not valid."""
    uids = tuple(path[name] for name in _UIDS if name in path)
    for uid in uids:
        if not is_uid(uid):
            raise Refused(BAD_REQUEST, f"{uid[:64]!a} is not a UID")
    return uids


def select(retrieval: "Retrieval", uids: Sequence[str]) -> "InstanceSelection":
    """Return the instances of a study, series or instance. Raises Refused where there are none."""
    study, series, instance = [(uid,) for uid in uids] + [()] * (len(_UIDS) - len(uids))
    found = retrieval.find(RetrieveKeys(studies=study, series=series, instances=instance))
    if not found.total:
        raise Refused(NOT_FOUND, f"{'/'.join(uids)}: there is no such {_UIDS[len(uids) - 1]}")
    return found


def select_one(retrieval: "Retrieval", uids: Sequence[str]) -> "StoredInstance":
    """Return one instance. Raises Refused where it is not there."""
    return next(select(retrieval, uids).instances())


class ObjectChoice(NamedTuple):
    """How objects are sent: in one of these transfer syntaxes; `is_single`: one alone, not as multipart."""

    syntaxes: tuple[str, ...]
    is_single: bool

    def syntax_for(self, stored: str) -> str | None:
        """Return the transfer syntax in which an object is sent; None: the user agent takes none of them."""
        if stored in self.syntaxes or ANY_SYNTAX in self.syntaxes:
            return stored
        wanted = next((one for one in self.syntaxes if one in TRANSCODED), None)
        return wanted if wanted and can_decode(stored) else None


def object_choices(ranges: Iterable[MediaType]) -> list[ObjectChoice]:
    """Return how a user agent takes objects, the preferred way first.

    Where it names no transfer syntax, application/dicom is in Explicit VR Little Endian (PS3.18 Section
    8.7.3.5.2); a wildcard takes objects as they are stored.
    """
    choices: dict[bool, list[str]] = {}
    for one in ranges:
        if not one.covers(DICOM):
            continue
        is_wild = "*" in one.content
        syntax = one.transfer_syntax or (ANY_SYNTAX if is_wild else EXPLICIT_LITTLE)
        choices.setdefault(one.name == DICOM, []).append(syntax)
    return [ObjectChoice(tuple(syntaxes), is_single) for is_single, syntaxes in choices.items()]
