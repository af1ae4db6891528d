"""Orders from an upstream worklist: the query for it, and what its answers change."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import orjson
import structlog
from peewee import chunked
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from index.orders.dicom import BadItem, attributes_of, order_of
from index.orders.records import NewOrder, Source
from index.orders.store import AT_ONCE, OrderStore
from index.query.charsets import UTF_8
from index.query.keys import Key
from index.query.worklist_keys import KEYS, SCHEDULED_STEPS
from index.records import Attributes

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The result of one query: items answered, orders added or changed, orders withdrawn, and faults."""

    items: int = 0
    changed: int = 0
    withdrawn: int = 0
    bad: tuple[str, ...] = ()


def everything(wanted: Mapping[str, str]) -> Dataset:
    """Return an identifier with every key of PS3.4 Table K.6-1; `wanted` has the values of some."""
    identifier = _level(KEYS, wanted)
    identifier.SpecificCharacterSet = UTF_8
    return identifier


def _level(keys: Mapping[str, Key], wanted: Mapping[str, str]) -> Dataset:
    dataset = Dataset()
    for keyword, key in keys.items():
        if key.vr == "SQ":
            values = wanted if keyword == SCHEDULED_STEPS else {}
            dataset.add(DataElement(key.tag, key.vr, Items([_level(key.items, values)])))
        else:
            dataset.add(DataElement(key.tag, key.vr, wanted.get(keyword) or None))
    return dataset


def take_over(store: OrderStore, sender: str, answers: Iterable[Dataset], *, complete: bool) -> TakenOver:
    """Take over the answers of an upstream worklist; if they are `complete`, withdraw all other orders.

    Several steps of one requested procedure are one order. Raises NotKept, DatabaseFault.
    """
    given: dict[str, NewOrder] = {}
    bad: list[str] = []
    bad_identities: set[str] = set()
    items = 0
    for items, dataset in enumerate(answers, start=1):
        try:
            order = order_of(dataset, Source.UPSTREAM, sender, "")
        except BadItem as error:
            bad.append(f"item {items} {error}")
            bad_identities.add(_identity_of_bad(dataset))
            continue
        identity = _identity({**order.attributes, **order.patient})
        first = given.get(identity) or replace(order, identity=identity, steps=())
        given[identity] = replace(first, steps=[*first.steps, *order.steps])
    stamps = store.stamps(Source.UPSTREAM, sender)
    stamped = (replace(order, stamp=_stamp(order)) for order in given.values())
    changed = [order for order in stamped if stamps.get(order.identity) != order.stamp]
    faults: list[Exception] = []
    for page in chunked(changed, AT_ONCE):
        faults += filter(None, store.put_each(page))
    for fault in faults:
        log.error("upstream_order_failed", peer=sender, exc_info=fault)
        bad.append(f"an order: {type(fault).__name__}")
    # A bad item without an identity may be any of the missing orders.
    is_known = complete and "" not in bad_identities
    gone = stamps.keys() - given.keys() - bad_identities if is_known else set()
    for identity in sorted(gone):
        store.withdraw(Source.UPSTREAM, sender, identity)
    return TakenOver(items, len(changed) - len(faults), len(gone), tuple(bad))


def _identity(attributes: Attributes) -> str:
    """Return the identity of an order, which all its steps share: its study, else its numbers and patient."""
    keywords = ("AccessionNumber", "RequestedProcedureID", "PatientID")
    numbers = "|".join(str(attributes.get(keyword) or "") for keyword in keywords)
    return str(attributes.get("StudyInstanceUID") or numbers)


def _identity_of_bad(dataset: Dataset) -> str:
    """Return the identity of an item that is not a valid order; empty where it has none."""
    try:
        identity = _identity(attributes_of(dataset))
    except BadItem:
        return ""
    return identity if identity.strip("|") else ""


def _stamp(order: NewOrder) -> str:
    content = [order.patient, order.attributes, list(order.steps), str(order.status)]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
