"""The rules of `[[routes]]`: to whom an instance is forwarded."""

import re
from collections.abc import Callable, Iterable, Sequence

from index.database.instance_rows import StoredObject
from index.dicom.value_rules import texts
from index.forwarding.patterns import as_expression, sop_classes
from index.forwarding.settings import RouteSettings

# The values that each rule looks at. An instance without a value has the empty one.
_VALUES: dict[str, Callable[[StoredObject], Iterable[str]]] = {
    "modality": lambda stored: texts(stored.header.series.get("Modality")) or ("",),
    "calling_aet": lambda stored: (stored.origin.calling_aet.strip(),),
    "called_aet": lambda stored: (stored.origin.called_aet.strip(),),
    "sop_class": lambda stored: (stored.header.sop_class_uid,),
    "description": lambda stored: (
        texts(stored.header.study.get("StudyDescription"))
        + texts(stored.header.series.get("SeriesDescription"))
        or ("",)
    ),
}
# Senders write them in any case.
_ANY_CASE = frozenset(("modality", "description"))

Rule = tuple[Callable[[StoredObject], Iterable[str]], Callable[[str], object]]


class Routes:
    """All routes of a configuration; false where there is none."""

    def __init__(self, settings: Sequence[RouteSettings] = ()) -> None:
        self._routes = [(_rules(one), [peer.strip() for peer in one.to]) for one in settings]
        self.peers = list(dict.fromkeys(peer for _, peers in self._routes for peer in peers))

    def __bool__(self) -> bool:
        return bool(self._routes)

    def peers_for(self, stored: StoredObject) -> Iterable[str]:
        """Return the peers to whom an instance is sent, each once; never the one that it came from."""
        found = {
            peer: None
            for rules, peers in self._routes
            if all(any(map(fits, values(stored))) for values, fits in rules)
            for peer in peers
        }
        found.pop(stored.origin.calling_aet.strip(), None)
        return found


def _rules(settings: RouteSettings) -> list[Rule]:
    """Return the rules that are given."""
    return [
        (values, _test(name, patterns))
        for name, values in _VALUES.items()
        if (patterns := getattr(settings, name))
    ]


def _test(name: str, patterns: Sequence[str]) -> Callable[[str], object]:
    each = [one.strip() for one in patterns]
    if name == "sop_class":
        each = [uid for one in each for uid in (sop_classes(one) or (one,))]
    flags = re.DOTALL | (re.IGNORECASE if name in _ANY_CASE else re.NOFLAG)
    return re.compile("|".join(map(as_expression, each)), flags).fullmatch
