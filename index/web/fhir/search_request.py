"""The parameters of a search: what is asked for, in which order, and what goes with it."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from index.database.connection import Database
from index.database.tables import Resource
from index.publication.searching.conditions import changed, condition
from index.publication.searching.resource_search import Order, Position
from index.publication.searching.values import BadSearch, UnknownParameter, criterion, plain, separated
from index.publication.terms.parameters import Kind, Parameter, parameters_of
from index.web.fhir.forms import FORM_PARAMETERS, Parameters

DEFAULT_COUNT, MOST_COUNT = 50, 500
"""Resources of a page (_count)."""
MOST_PARAMETERS = 100
"""Parameters of one search: each is a part of a statement."""
POSITION = "_after"
"""The parameter of the link to the next page: the position that it begins behind."""
COMMON = {"_id": Kind.TOKEN, "_lastUpdated": Kind.DATE}
"""Search parameters of every type."""

_SORTED = (Kind.DATE, Kind.STRING, Kind.TOKEN, Kind.URI)
_TOTALS = ("none", "estimate", "accurate")
_ORDERS = {"": "", "asc": "", "desc": "-"}


@dataclass(slots=True)
class SearchRequest:
    """What a search asks for. `used`: the parameters that were heard; `ignored`: why others were not.

    `base` is the address of this FHIR version: a reference may be given with it.
    """

    database: Database
    fhir: str
    type: str
    base: str
    conditions: list[Any] = field(default_factory=list)
    order: Order = field(default_factory=Order)
    after: Position | None = None
    count: int = DEFAULT_COUNT
    has_total: bool = True
    includes: list[Parameter] = field(default_factory=list)
    reverse_includes: list[Parameter] = field(default_factory=list)
    used: Parameters = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def hear(self, parameters: Parameters) -> None:
        """Take the parameters in. Raises BadSearch."""
        if len(parameters) > MOST_PARAMETERS:
            raise BadSearch(f"more than {MOST_PARAMETERS} parameters")
        for name, value in parameters:
            try:
                self._hear(name, value)
            except UnknownParameter as error:
                self.ignored.append(str(error))
            else:
                if name != POSITION:
                    self.used.append((name, value))

    def _hear(self, name: str, value: str) -> None:
        if name in FORM_PARAMETERS:
            return
        word, _, modifier = name.partition(":")
        controls: dict[str, Callable[[str, str], None]] = {
            "_sort": self._sort,
            "_include": self._include,
            "_revinclude": self._reverse_include,
            "_count": self._count,
            "_total": self._total,
            POSITION: self._position,
        }
        if word in controls:
            controls[word](value, modifier)
        elif name == "_id":
            names = [plain(each) for each in separated(value, ",") if each]
            self.conditions.append(Resource.name.in_([each.replace("\0", "") for each in names]))
        elif name == "_lastUpdated":
            self.conditions.append(changed(name, value))
        elif word.startswith("_"):
            raise UnknownParameter(f"{name[:100]}: there is no such parameter here, see metadata")
        else:
            asked = criterion(self.fhir, self.type, name, value.replace(f"{self.base}/", ""))
            self.conditions.append(condition(self.database, asked))

    def _sort(self, value: str, modifier: str) -> None:
        """Hear _sort=-started, or as DSTU2 has it _sort:desc=started."""
        if modifier not in _ORDERS:
            raise BadSearch(f"_sort:{modifier[:100]}: allowed are asc and desc")
        first, *others = (_ORDERS[modifier] + value).split(",")
        name = first.removeprefix("-")
        if others or self.order.by:
            self.ignored.append("_sort: orders by one parameter only, the others are left out")
        if self.order.by:
            return
        by: Parameter | str | None = name if name in COMMON else parameters_of(self.fhir, self.type).get(name)
        if by is None or (isinstance(by, Parameter) and (by.rows or by.kind not in _SORTED)):
            raise UnknownParameter(f"_sort={name[:100]}: there is no such order of {self.type}")
        self.order = Order(by, first.startswith("-"))

    def _include(self, value: str, modifier: str) -> None:
        kind, name, _ = _three(value)
        known = {
            each.name: each for each in parameters_of(self.fhir, kind).values() if each.kind is Kind.REFERENCE
        }
        if not modifier and (value == "*" or (kind == self.type and name == "*")):
            self.includes += self._references().values()
        elif not modifier and kind == self.type and name in known:
            self.includes.append(known[name])
        else:
            raise UnknownParameter(
                f"_include={value[:100]}: allowed are {', '.join(includes(self.fhir, self.type))}"
            )

    def _references(self) -> dict[str, Parameter]:
        found = parameters_of(self.fhir, self.type).values()
        return {each.name: each for each in found if each.kind is Kind.REFERENCE}

    def _reverse_include(self, value: str, modifier: str) -> None:
        kind, name, _ = _three(value)
        parameter = parameters_of(self.fhir, kind).get(name)
        if modifier or parameter is None or self.type not in parameter.targets:
            allowed = ", ".join(reverse_includes(self.fhir, self.type))
            raise UnknownParameter(f"_revinclude={value[:100]}: allowed are {allowed or 'none'}")
        self.reverse_includes.append(parameter)

    def _count(self, value: str, modifier: str) -> None:
        if modifier or not (value.isascii() and value.isdecimal()):
            raise BadSearch(f"_count={value[:100]}: allowed is a number of resources")
        self.count = min(int(value[:9]), MOST_COUNT)

    def _total(self, value: str, modifier: str) -> None:
        if modifier or value not in _TOTALS:
            raise BadSearch(f"_total={value[:100]}: allowed are {', '.join(_TOTALS)}")
        self.has_total = value != "none"

    def _position(self, value: str, _: str) -> None:
        self.after = position(value)


def _three(value: str) -> tuple[str, str, str]:
    kind, _, rest = value.partition(":")
    name, _, target = rest.partition(":")
    return kind, name, target


def includes(fhir: str, kind: str) -> list[str]:
    """Return what _include may be of a type of resource."""
    found = parameters_of(fhir, kind).values()
    return [f"{kind}:{each.name}" for each in found if each.kind is Kind.REFERENCE]


def reverse_includes(fhir: str, kind: str) -> list[str]:
    """Return what _revinclude may be of a type of resource: studies only."""
    found = parameters_of(fhir, "ImagingStudy").values()
    return [f"ImagingStudy:{each.name}" for each in found if kind in each.targets]


def written(after: Position) -> str:
    """Return a position as it stands in a link."""
    return base64.urlsafe_b64encode(orjson.dumps(after)).rstrip(b"=").decode()


def position(text: str) -> Position:
    """Return the position of a link. Raises BadSearch."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
    except (ValueError, binascii.Error) as error:
        raise BadSearch(f"{POSITION}: is no position of ours: follow the link to the next page") from error
    if not _is_position(found):
        raise BadSearch(f"{POSITION}: is no position of ours: follow the link to the next page")
    return found[0], found[1]


def _is_position(found: Any) -> bool:
    if not isinstance(found, list) or len(found) != len(("key", "row")):
        return False
    key, row = found
    numbers = [each for each in found if isinstance(each, int)]
    return (
        isinstance(row, int)
        and (key is None or isinstance(key, str | int))
        and all(abs(each) < 1 << 62 for each in numbers)
    )


def is_strict(preferences: Sequence[str]) -> bool:
    """Tell whether unknown parameters are errors: Prefer: handling=strict (R4 3.1.1.4.2)."""
    words = {word.strip().lower() for each in preferences for word in each.replace(";", ",").split(",")}
    return "handling=strict" in words
