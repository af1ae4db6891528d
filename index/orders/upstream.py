"""Another worklist taken over: what to ask it, and what follows from its answers."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import orjson
import structlog
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from index.errors import IndexFault
from index.orders.dicom import BadItem, attributes_of, order_of
from index.orders.records import NewOrder, Source
from index.orders.service import Orders
from index.query.charsets import UTF_8
from index.query.keys import KEYS, SCHEDULED_STEPS, Key
from index.records import Attributes

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What one answer came to: its items, orders new or changed, orders told of no more, and what was bad."""

    items: int = 0
    changed: int = 0
    withdrawn: int = 0
    bad: tuple[str, ...] = ()


def everything(wanted: Mapping[str, str]) -> Dataset:
    """Return an identifier that asks for every key of Table K.6-1; `wanted` gives some of them values."""
    asked = _level(KEYS, wanted)
    asked.SpecificCharacterSet = UTF_8
    return asked


def _level(keys: Mapping[str, Key], wanted: Mapping[str, str]) -> Dataset:
    made = Dataset()
    for keyword, key in keys.items():
        if key.vr == "SQ":
            below = wanted if keyword == SCHEDULED_STEPS else {}
            made.add(DataElement(key.tag, key.vr, Items([_level(key.items, below)])))
        else:
            made.add(DataElement(key.tag, key.vr, wanted.get(keyword) or None))
    return made


def take_over(orders: Orders, sender: str, answers: Iterable[Dataset], *, whole: bool) -> TakenOver:
    """Take over what an upstream worklist answered; where that is `whole`, what it tells of no more goes.

    Several steps of one requested procedure are one order. Raises NotKept, DatabaseFault.
    """
    told: dict[str, NewOrder] = {}
    bad: list[str] = []
    spared: set[str] = set()
    items = 0
    for items, dataset in enumerate(answers, start=1):
        try:
            order = order_of(dataset, Source.UPSTREAM, sender, "")
        except BadItem as error:
            bad.append(f"item {items} {error}")
            spared.add(_identity_of_bad(dataset))
            continue
        identity = _identity({**order.attributes, **order.patient})
        known = told.get(identity) or replace(order, identity=identity, steps=())
        told[identity] = replace(known, steps=[*known.steps, *order.steps])
    stamps = orders.identities(Source.UPSTREAM, sender)
    changed = 0
    for identity, order in told.items():
        try:
            stamp = _stamp(order)
            if stamps.get(identity) != stamp:
                orders.add(replace(order, stamp=stamp))
                changed += 1
        except IndexFault:
            raise
        except Exception as error:  # whatever one order brings up, the others are taken
            log.exception("upstream_order_failed", peer=sender)
            bad.append(f"an order: {type(error).__name__}")
    # A bad item that does not say what it is called may be any of those that are told of no more.
    gone = stamps.keys() - told.keys() - spared if whole and "" not in spared else set()
    for identity in sorted(gone):
        orders.withdraw(Source.UPSTREAM, sender, identity)
    return TakenOver(items, changed, len(gone), tuple(bad))


def _identity(said: Attributes) -> str:
    """Return what makes two answers one order: its study, else its numbers and its patient."""
    keywords = ("AccessionNumber", "RequestedProcedureID", "PatientID")
    return str(said.get("StudyInstanceUID") or "|".join(str(said.get(one) or "") for one in keywords))


def _identity_of_bad(dataset: Dataset) -> str:
    """Return the same of an item that is no order, as far as it can be read; empty where it says nothing."""
    try:
        identity = _identity(attributes_of(dataset))
    except BadItem:
        return ""
    return identity if identity.strip("|") else ""


def _stamp(order: NewOrder) -> str:
    said = [order.patient, order.attributes, list(order.steps), str(order.status)]
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()
