"""One bad file, item or resource stops no other, and parsers raise only their own errors."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from index import Index, take_over
from index.orders.dicom import MAX_FILE, BadItem, attributes_of, order_of, read_file
from index.orders.fhir import BadResource, orders_of
from index.orders.folder import WorklistFolder
from index.orders.import_orders import Imported
from index.orders.records import Source
from index.orders.store import AT_ONCE
from support.daemon import cli
from support.filling import STORAGE
from support.worklist import item, selected, write


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


def accessions(index: Index) -> list[str]:
    return sorted(one.attributes["AccessionNumber"] for one in selected(index))


# --- DICOM worklist items ---

STEPS = b"\x40\x00\x00\x01SQ\0\0"


def explicit(dataset: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    return stream.getvalue()


def no_sequence() -> bytes:
    """The sequence of steps as a text, and the rest cut off: what stopped a folder."""
    raw = explicit(item(1))
    return raw[: raw.index(STEPS)] + b"\x40\x00\x00\x01LO\x04\x00STEP"


def text_as_sequence(tag: bytes) -> bytes:
    """An item with one element more, or other, that is a sequence and should be text."""
    return tag + b"SQ\0\0\0\0\0\0" + explicit(item(1))


BAD_ITEMS = {
    "no sequence": no_sequence(),
    "empty": b"",
    "noise": os.urandom(3000),
    "no step": explicit(item(1))[:200],
    "deep": b"".join(
        b"\x40\x00\x00\x01SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" for _ in range(5000)
    ),
    "meta that is no text": b"\x02\x00\x10\x00SQ\0\0\0\0\0\0" + explicit(item(1)),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_bad_file_stops_no_other_of_the_folder(index: Index, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "wl"
    write(item(2), folder / "b.wl")
    (folder / "a.wl").write_bytes(BAD_ITEMS[name])
    follower = WorklistFolder(index.orders.store, folder, 1.0)
    for _ in range(2):
        follower.update()
        assert "A2" in accessions(index)


def test_what_only_the_store_finds_bad_stops_no_other(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write(item(number), tmp_path / "wl" / f"{number}.wl")
    put = index.orders.store._put

    def sometimes(order: Any) -> int:
        row = put(order)
        if order.attributes["AccessionNumber"] == "A1":
            raise TypeError("brought up by one order")
        return row

    monkeypatch.setattr(index.orders.store, "_put", sometimes)
    WorklistFolder(index.orders.store, tmp_path / "wl", 1.0).update()
    assert ["A2"] == accessions(index)
    report = index.orders.import_files([tmp_path / "wl"])
    assert (1, [(tmp_path / "wl/1.wl", "TypeError: brought up by one order")]) == (
        report.taken,
        report.failed,
    )
    assert ["A2", "A2"] == accessions(index)


@pytest.mark.parametrize("count", [AT_ONCE - 1, AT_ONCE, AT_ONCE + 1])
def test_as_many_files_as_one_transaction_takes(index: Index, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "wl"
    for number in range(1, count + 1):
        write(item(number), folder / f"{number:03}.wl")
    (folder / "000.wl").write_bytes(b"not a worklist item")
    report = index.orders.import_files([folder])
    assert (count, [folder / "000.wl"]) == (report.taken, [path for path, _ in report.failed])
    follower = WorklistFolder(index.orders.store, folder, 1.0)
    follower.update()
    assert 2 * count == len(accessions(index))
    (folder / "000.wl").unlink()
    (folder / "001.wl").unlink()
    follower.update()
    assert 2 * count - 1 == len(accessions(index))


def test_a_name_of_any_bytes_is_followed(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "wl"
    write(item(2), folder / "b.wl")
    odd = os.fsencode(folder) + b"/M\xfcller.wl"
    os.rename(write(item(1), folder / "x.wl"), odd)  # noqa: PTH104  a name of bytes
    follower = WorklistFolder(index.orders.store, folder, 1.0)
    follower.update()
    assert ["A1", "A2"] == accessions(index)
    os.remove(odd)  # noqa: PTH107
    follower.update()
    assert ["A2"] == accessions(index)


def test_a_pipe_in_the_folder_is_passed_over(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "wl"
    write(item(2), folder / "b.wl")
    os.mkfifo(folder / "a.wl")
    WorklistFolder(index.orders.store, folder, 1.0).update()
    assert ["A2"] == accessions(index)
    report = index.orders.import_files([folder])
    assert (1, [folder / "a.wl"]) == (report.taken, [path for path, _ in report.failed])


def test_a_deflated_item_is_bounded(tmp_path: Path) -> None:
    def deflated(content: bytes) -> Path:
        made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        syntax = b"1.2.840.10008.1.2.1.99"
        meta = b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
        path = tmp_path / "deflated.wl"
        path.write_bytes(bytes(128) + b"DICM" + meta + made.compress(content) + made.flush())
        return path

    assert "P1" == read_file(deflated(explicit(item(1)))).PatientID
    with pytest.raises(BadItem, match="inflates to more than"):
        read_file(deflated(explicit(item(1)) + bytes(MAX_FILE)))


@pytest.mark.parametrize(
    ("keyword", "tag"),
    [
        ("PatientName", b"\x10\x00\x10\x00"),
        ("PatientID", b"\x10\x00\x20\x00"),
        ("StudyInstanceUID", b"\x20\x00\x0d\x00"),
        ("IssuerOfAccessionNumberSequence", b"\x08\x00\x51\x00"),
    ],
)
@pytest.mark.parametrize(
    "vr", [b"SQ\0\0\0\0\0\0", b"LO\x04\0STEP", b"US\x02\0\x01\x00", b"UN\0\0\x04\0\0\0STEP"]
)
def test_an_element_of_another_vr_is_no_error(tmp_path: Path, keyword: str, tag: bytes, vr: bytes) -> None:
    dataset = item(1)
    dataset.pop(keyword, None)
    path = tmp_path / "one.wl"
    path.write_bytes(tag + vr + explicit(dataset))
    order = order_of(read_file(path), Source.FILE, "", "x")
    assert 1 == len(order.steps)
    for name, value in {**order.attributes, **order.patient}.items():
        assert isinstance(value, list) is name.endswith("Sequence")


@pytest.mark.parametrize("length", ["defined", "undefined"])
def test_a_file_that_is_cut_off_never_says_a_part_of_a_value(tmp_path: Path, length: str) -> None:
    """A part of a step ID or PatientID is another one's (PS3.5 Section 7.1.1: a value has its length)."""
    dataset = item(1)
    for element in dataset:
        element.is_undefined_length = length == "undefined" and element.VR == "SQ"
    content, path = explicit(dataset), tmp_path / "one.wl"
    whole = attributes_of(dataset)
    (step,) = whole.pop("ScheduledProcedureStepSequence")
    refused = 0
    # From behind the Specific Character Set, without which there is no order, to the end.
    for end in range(content.index(b"ISO_IR 100") + 10, len(content)):
        path.write_bytes(content[:end])
        try:
            told = attributes_of(read_file(path))
        except BadItem:
            refused += 1
            continue
        for said in told.pop("ScheduledProcedureStepSequence", []):
            assert step == {**step, **said}
        assert whole == {**whole, **told}
    assert refused > len(content) / 3
    path.write_bytes(content[:-1])
    with pytest.raises(BadItem, match="ends within the value of"):
        order_of(read_file(path), Source.FILE, "", "x")


def test_what_cannot_be_read_is_left_out_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "one.wl"
    # PregnancyStatus (0010,21C0) of three bytes.
    path.write_bytes(explicit(item(1)) + b"\x10\x00\xc0\x21US\x03\x00\x01\x00\x00")
    order = order_of(read_file(path), Source.FILE, "", "x")
    assert ("P1", False) == (order.patient["PatientID"], "PregnancyStatus" in order.patient)


def test_several_values_where_one_is_due(index: Index) -> None:
    dataset = item(1)
    dataset.PatientID, dataset.AccessionNumber = ["12", "34"], ["A1", "A2"]
    dataset.ScheduledProcedureStepSequence[0].Modality = ["PT", "CT"]
    dataset.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus = ["READY", "STARTED"]
    index.orders.add(order_of(dataset, Source.FILE, "", "x"))
    (told,) = index.orders.listed()
    assert ("12\\34", "A1\\A2") == (told.attributes["PatientID"], told.attributes["AccessionNumber"])
    assert ["PT", "CT"] == told.attributes["ScheduledProcedureStepSequence"][0]["Modality"]


def test_a_uid_that_is_none_is_not_taken(index: Index) -> None:
    dataset = item(1)
    dataset["StudyInstanceUID"]._value = "1.2.abc"
    index.orders.add(order_of(dataset, Source.FILE, "", "x"))
    assert index.orders.listed()[0].study_uid.startswith("2.25.")


# --- an upstream worklist ---


def bad(number: int) -> Dataset:
    dataset = item(number)
    del dataset.ScheduledProcedureStepSequence
    dataset.add_new(0x00400100, "LO", "STEP")
    return dataset


def test_a_bad_answer_stops_no_other(index: Index) -> None:
    taken = take_over(index.orders.store, "UP", [item(1), bad(2), item(3), Dataset()], complete=True)
    assert (4, 2, 0, 2) == (taken.items, taken.changed, taken.withdrawn, len(taken.bad))
    assert ["A1", "A3"] == accessions(index)


def test_what_a_bad_answer_is_about_is_not_withdrawn_and_the_rest_is(index: Index) -> None:
    take_over(index.orders.store, "UP", [item(1), item(2), item(3)], complete=True)
    assert 1 == take_over(index.orders.store, "UP", [item(1), bad(2)], complete=True).withdrawn
    assert ["A1", "A2"] == accessions(index)
    assert 0 == take_over(index.orders.store, "UP", [item(1), Dataset()], complete=True).withdrawn
    assert ["A1", "A2"] == accessions(index)


# --- FHIR ---

PATIENT = {"resourceType": "Patient", "id": "p", "identifier": [{"value": "P1"}]}
REQUEST: dict[str, Any] = {
    "resourceType": "ServiceRequest",
    "id": "g",
    "status": "active",
    "contained": [PATIENT],
    "subject": {"reference": "#p"},
}
WRONG = [
    ({"identifier": "X"}, "ServiceRequest.identifier: must be a list"),
    ({"identifier": ["X"]}, "ServiceRequest.identifier[0]: must be an object"),
    ({"status": ["active"]}, "ServiceRequest.status: must be a string"),
    ({"code": "CT"}, "ServiceRequest.code: must be an object"),
    ({"code": {"coding": {}}}, "ServiceRequest.code.coding: must be a list"),
    ({"id": 5}, "ServiceRequest.id: must be a string"),
    ({"subject": "#p"}, "ServiceRequest.subject: must be an object"),
    ({"contained": PATIENT}, "ServiceRequest.contained: must be a list"),
    ({"contained": [{**PATIENT, "birthDate": 1970}]}, "contained[0].birthDate: must be a string"),
    ({"contained": [{**PATIENT, "name": [{"given": [1]}]}]}, "name[0].given: must be a string"),
    ({"occurrenceDateTime": "2026-13-45"}, "ServiceRequest.occurrenceDateTime '2026-13-45': a date"),
    ({"occurrenceDateTime": "2026-11"}, "ServiceRequest.occurrenceDateTime '2026-11': a date"),
    ({"occurrencePeriod": {"start": "soon"}}, "ServiceRequest.occurrencePeriod.start 'soon': a date"),
]


@pytest.mark.parametrize(("changes", "reason"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_type_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadResource) as told:
        orders_of({**REQUEST, **changes})
    assert reason in str(told.value)


def test_a_resource_of_wrong_types_stops_no_other_import(tmp_path: Path) -> None:
    for number, (changes, _) in enumerate(WRONG):
        (tmp_path / f"{number:02}.json").write_text(json.dumps({**REQUEST, **changes}))
    (tmp_path / "99.json").write_text(json.dumps(REQUEST))
    with Index(tmp_path / "data", STORAGE) as index:
        report: Imported = index.orders.import_files([tmp_path])
    assert 1 == report.taken
    assert [f"{number:02}.json" for number in range(len(WRONG))] == [
        path.name for path, _ in report.failed if path.suffix == ".json"
    ]


def test_the_command_names_the_bad_file_and_takes_the_good(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps({**REQUEST, "identifier": "X"}))
    (tmp_path / "in" / "b.json").write_text(json.dumps(REQUEST))
    ended = cli("worklist", "import", str(tmp_path / "in"), "--data", str(tmp_path / "data"))
    assert (1, "1 taken; 1 failed\n") == (ended.returncode, ended.stdout)
    assert f"failed {tmp_path}/in/a.json: ServiceRequest.identifier: must be a list" in ended.stderr


def bundle(*entries: tuple[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "entry": [{"fullUrl": url, "resource": one} if url else {"resource": one} for url, one in entries],
    }


def test_a_name_that_two_patients_have_means_neither() -> None:
    request = {**REQUEST, "contained": [], "subject": {"reference": "Patient/p"}}
    other = {**PATIENT, "identifier": [{"value": "P2"}]}
    assert 1 == len(orders_of(bundle(("http://a/Patient/p", PATIENT), ("", PATIENT), ("", request))))
    with pytest.raises(BadResource, match="'Patient/p' is not a Patient"):
        orders_of(bundle(("http://a/Patient/p", PATIENT), ("http://b/Patient/p", other), ("", request)))
    with pytest.raises(BadResource, match="'' is not a Patient"):
        orders_of(bundle(("", PATIENT), ("", {**request, "subject": {}})))


def test_an_order_without_a_date_is_for_now() -> None:
    (order,) = orders_of(REQUEST)
    (step,) = order.steps
    assert (8, 6) == (
        len(step["ScheduledProcedureStepStartDate"]),
        len(step["ScheduledProcedureStepStartTime"]),
    )


def test_every_station_counts() -> None:
    devices = [{"type": "Device", "identifier": {"value": name}} for name in ("CT1", "CT2")]
    (order,) = orders_of({**REQUEST, "performer": [*devices, {"type": "Practitioner", "display": "X"}]})
    assert ["CT1", "CT2"] == order.steps[0]["ScheduledStationAETitle"]


# --- whatever comes ---

FUZZED = {"deadline": None, "suppress_health_check": list(HealthCheck)}
NAMES = st.sampled_from(
    (
        *(
            "resourceType",
            "entry",
            "resource",
            "fullUrl",
            "id",
            "status",
            "identifier",
            "contained",
            "subject",
        ),
        *(
            "reference",
            "type",
            "coding",
            "code",
            "system",
            "value",
            "display",
            "text",
            "name",
            "family",
            "given",
        ),
        *("prefix", "suffix", "use", "birthDate", "gender", "reasonCode", "requester", "authoredOn", "note"),
        *("occurrenceDateTime", "occurrencePeriod", "start", "orderDetail", "performer", "priority"),
    )
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ("#p", "P1", "MR", "ACSN", "Device", "Patient/p", "2026-01-05", "2026-01-05T10:15:00Z", "active")
    ),
    st.sampled_from(("Bundle", "ServiceRequest", "Patient", "urn:dicom:uid", "urn:oid:1.2.3")),
)
TREES = st.recursive(
    LEAVES,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(NAMES, below, max_size=5)),
    max_leaves=12,
)


@st.composite
def resources(draw: Callable[[Any], Any]) -> Any:
    """Return a sound order with some of it changed to anything, alone or in a Bundle; or anything at all."""
    patient = {**PATIENT, **draw(st.dictionaries(NAMES, TREES, max_size=2))}
    request = {**REQUEST, "contained": [patient], **draw(st.dictionaries(NAMES, TREES, max_size=3))}
    kind = draw(st.sampled_from(("alone", "bundle", "anything")))
    if kind == "bundle":
        entry = {"resource": request, **draw(st.dictionaries(NAMES, TREES, max_size=1))}
        return {
            "resourceType": "Bundle",
            "entry": draw(st.sampled_from(([entry], [entry, entry]))),
            "id": "b",
        }
    return request if kind == "alone" else draw(TREES)


def parse_fhir(resource: Any) -> None:
    try:
        orders = orders_of(resource)
    except BadResource:
        return
    for order in orders:
        # What the store does with it: it must be text, and JSON.
        assert order.identity
        orjson.dumps([order.patient, order.attributes, list(order.steps)])


@given(resources())
@settings(max_examples=300, **FUZZED)
def test_any_resource_is_an_order_or_told_bad(resource: Any) -> None:
    parse_fhir(resource)


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(resources())
@settings(max_examples=100_000, **FUZZED)
def test_a_hundred_thousand_resources(resource: Any) -> None:
    parse_fhir(resource)


WHOLE = (
    explicit(item(1)),
    explicit(item(3, PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet="ISO_IR 192")),
    explicit(item(4, SpecificCharacterSet=["", "ISO 2022 IR 87"])),
)


@st.composite
def damaged(draw: Callable[[Any], Any]) -> bytes:
    """Return a worklist item with some bytes changed, put in, left out or cut off."""
    raw = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        what = draw(st.sampled_from(("change", "put in", "leave out", "cut off", "vr")))
        if what == "change":
            raw[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "put in":
            raw[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif what == "leave out":
            del raw[at : at + draw(st.integers(1, 40))]
        elif what == "cut off":
            del raw[at:]
        else:
            names = [
                n for n in range(4, len(raw) - 4) if raw[n : n + 2].isalpha() and raw[n : n + 2].isupper()
            ]
            if names:
                place = draw(st.sampled_from(names))
                raw[place : place + 2] = draw(
                    st.sampled_from((b"SQ", b"UN", b"LO", b"US", b"DS", b"AT", b"PN"))
                )
    return bytes(raw)


def parse_item(folder: Path, content: bytes) -> None:
    path = folder / "one.wl"
    path.write_bytes(content)
    try:
        order = order_of(read_file(path), Source.FILE, "", "x")
    except BadItem:
        return
    orjson.dumps([order.patient, order.attributes, list(order.steps), order.charset])
    assert order.steps


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(content=damaged())
@settings(max_examples=300, **FUZZED)
def test_any_file_is_an_item_or_told_bad(tmp_path: Path, content: bytes) -> None:
    parse_item(tmp_path, content)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(content=damaged())
@settings(max_examples=100_000, **FUZZED)
def test_a_hundred_thousand_files(tmp_path: Path, content: bytes) -> None:
    parse_item(tmp_path, content)
