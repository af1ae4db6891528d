"""What the statements of daily work read in PostgreSQL: rows of large tables by an index only.

auto_explain logs the plan of every statement, also of those that a statement runs (foreign keys). Sequential
scans are made dear, as they are in a large table: what is read so all the same has no index.
"""

import itertools
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from pydicom.dataset import Dataset

from index import Index, IndexSettings
from index.query.study_filter import StudyFilter
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep
from support.hl7 import message, msh, orm, pid
from support.modality import begun
from support.postgresql import create_database, drop_database
from support.query import ask, identifier

_numbers = itertools.count()
OPTIONS = (
    "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    " -c auto_explain.log_format=json -c auto_explain.log_nested_statements=on"
)
# Tables with a row for each patient, study, order or more; the others have a few, or what is to be done.
LARGE = frozenset(
    (
        *("patient", "study", "study_listing", "study_term", "study_variant", "series", "series_variant"),
        *("instance", "resource", "resource_content", "study_resource", "change", "commitment"),
        *("imaging_order", "scheduled_step", "study_match", "study_order", "study_key", "performed_step"),
        *("performed_step_study", "performed_for", "performed_instance"),
    )
)
# Indexes of what is to be done: they have no more rows than that.
TO_DO = ("study_unpublished", "study_listing_to_make", "resource_without_content")
# Nodes of a plan that read all below them before they give anything.
COLLECTING = ("Sort", "Aggregate", "Hash")
_PLAN = re.compile(r"duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)")


class Plans:
    """The plans of what has been run since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path.stat().st_size

    def new(self) -> list[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._place)
            content = file.read()
        self._place += len(content)
        return [json.loads(text.replace("\t", "")) for text in _PLAN.findall(content.decode())]


def nodes(plan: dict[str, Any], *, is_limited: bool = False) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the nodes of a plan, each with whether no more of it is read than a limit asks for."""
    yield plan, is_limited
    kind = plan["Node Type"]
    below = kind == "Limit" or (is_limited and kind not in COLLECTING)
    for child in plan.get("Plans", ()):
        yield from nodes(child, is_limited=below)


def is_whole(node: dict[str, Any], *, is_limited: bool) -> bool:
    """Whether all of a large table is read."""
    if node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        by_part = node["Index Name"] in TO_DO
        is_large = any(node["Index Name"].startswith(f"{table}_") for table in LARGE)
        return is_large and not (node.get("Index Cond") or is_limited or by_part)
    return node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE


@pytest.fixture
def planned(migrated: str, tmp_path: Path) -> Iterator[tuple[Index, Plans]]:
    name = f"plans{next(_numbers)}"
    url = create_database(migrated, name, "migrated")
    log = Path(migrated.rpartition("host=")[2]) / "log"
    settings = IndexSettings(url=SecretStr(f"{url}&options={quote(OPTIONS)}"))
    with Index(tmp_path, STORAGE, settings, joins=True) as index:
        index.serve()
        yield index, Plans(log)
    drop_database(migrated, name)


def test_all_by_indexes(planned: tuple[Index, Plans]) -> None:
    index, plans = planned
    for study in (1, 2, 3):
        for number in (1, 2):
            keep(index, instance(study, 1, number, PatientID=f"P{study}", AccessionNumber=f"A{study}"))
    uid, tell = f"{ROOT}.1", index.orders._handler.handle
    retrieve = Dataset()
    retrieve.QueryRetrieveLevel, retrieve.PatientID, retrieve.StudyInstanceUID = "STUDY", "P1", uid
    ending = Dataset()
    ending.PerformedProcedureStepStatus = "COMPLETED"
    everything = Dataset()
    everything.PatientName = "Doe*"
    work = {
        "receive": lambda: keep(index, instance(1, 2, 9)),
        "publish": index._publisher.publish_all,
        "state": index.state,
        "order": lambda: tell(orm(patient=pid("P1"))),
        "change of an order": lambda: tell(orm("XO", patient=pid("P1"))),
        "update of a patient": lambda: tell(message(msh("ADT^A08"), "EVN|A08|20260105", pid("P1"))),
        "merge": lambda: tell(message(msh("ADT^A40"), "EVN|A40|2026", pid("P2"), "MRG|P3^^^^MR")),
        "publish what orders change": index._publisher.publish_all,
        "begin a step": lambda: index.procedures.create("1.2.3", "CT1", begun(study_uid=uid)),
        "end a step": lambda: index.procedures.update("1.2.3", ending),
        "worklist": lambda: list(index.worklist.find(everything, "CT1")),
        "retrieve": lambda: list(index.retrieval.select(retrieve, patient_root=True).instances()),
        "commit": lambda: index.commitments.ask("CT1", "1.2.9", [("1.2", f"{uid}.1.1")]),
        "report": lambda: list(index.commitments.due()),
        "show": lambda: index.resource(uid, "r4"),
        "changes": lambda: list(index.changes(1)),
        "list": lambda: list(itertools.islice(index.find_studies(), 3)),
        "list by name": lambda: list(index.find_studies(StudyFilter(name="doe*"))),
        "delete": lambda: index.delete(f"{ROOT}.2"),
        "publish a deletion": index._publisher.publish_all,
    }
    for keyword, value in (
        ("StudyInstanceUID", uid),
        ("PatientID", "P1"),
        ("PatientName", "Doe^J*"),
        ("AccessionNumber", "A1"),
        ("StudyDate", "20260101-20260201"),
    ):
        work[f"query by {keyword}"] = partial(ask, index, identifier("STUDY", **{keyword: value}))
    series = identifier("SERIES", StudyInstanceUID=uid, Modality="CT")
    images = identifier("IMAGE", StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", InstanceNumber=None)
    work["query series"], work["query images"] = (partial(ask, index, one) for one in (series, images))
    by_name = identifier("PATIENT", PatientName="Doe^J*")
    work["query PATIENT"] = lambda: ask(index, by_name, patient_root=True)
    found = {name: whole(plans, act) for name, act in work.items()}
    assert {} == {name: plan for name, plan in found.items() if plan}


def whole(plans: Plans, act: Any) -> list[str]:
    """Do something; return what reads all of a large table."""
    plans.new()
    act()
    made = plans.new()
    assert made
    return [
        f"{node['Node Type']} on {node.get('Relation Name')}: {plan['Query Text'][:600]}"
        for plan in made
        for node, is_limited in nodes(plan["Plan"])
        if is_whole(node, is_limited=is_limited)
    ]
