"""Published to a FHIR server: every change, in order, once."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from index import Index, TargetFilter
from index.publication.targets import worker as worker_module
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Request, Response
from support.filling import STORAGE, keep
from support.targets import Site, here, target, there

Sites = Callable[..., Site]


@pytest.mark.parametrize("method", ["transaction", "resources"])
@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_the_server_has_what_the_files_have(site: Sites, tmp_path: Path, method: str, version: str) -> None:
    server = FhirServer(version)
    made = site(target(server, method=method))
    for study in (1, 2, 3):
        for number in (1, 2):
            keep(made.index, instance(study, 1, number, ReferringPhysicianName="House^Greg"))
    assert made.is_published()
    assert [] == made.left()
    assert here(tmp_path / "data", version) == there(server)
    server.close()


def test_what_has_not_changed_is_not_sent_again(site: Sites, server: FhirServer) -> None:
    made = site(target(server))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    first = len(server.writes)
    keep(made.index, instance(1, 1, 2))
    assert made.is_published()
    second = server.writes[first:]
    urls = [entry["request"]["url"] for one in second for entry in one.json["entry"]]
    assert {f"ImagingStudy/{ROOT}.1"} == set(urls)
    assert 2 == server.resources[f"ImagingStudy/{ROOT}.1"]["numberOfInstances"]
    assert 'W/"1"' == second[0].json["entry"][0]["request"]["ifMatch"]


def test_a_target_that_is_added_later_is_filled(
    site: Sites, server: FhirServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from index.publication.targets import outbox

    monkeypatch.setattr(outbox, "FILLED", 2)
    monkeypatch.setattr(outbox, "MOST_FILLED", 3)
    before = site()
    for study in range(1, 8):
        keep(before.index, instance(study))
    before.index.catch_up()
    before.close()
    made = site(target(server))
    assert made.is_published()
    assert here(tmp_path / "data") == there(server)


def test_one_that_was_down_loses_nothing_and_slows_no_other(
    site: Sites, server: FhirServer, tmp_path: Path
) -> None:
    other = FhirServer()
    is_down = True
    server.script = lambda _: Response(503, b"", {"Retry-After": "0"}) if is_down else None
    made = site(target(server, "down"), target(other, "up"))
    for study in range(1, 6):
        keep(made.index, instance(study))
    assert eventually(lambda: 5 == len(other.of("ImagingStudy")))
    assert eventually(lambda: {"down"} == {name for name, *_ in made.left()} and 5 == len(made.left()))
    assert here(tmp_path / "data") == there(other)
    assert eventually(lambda: "503" in made.index.targets.failing().get("down", ""))
    assert {("down", "waiting", 0)} == {(name, state, tries) for name, _, state, tries in made.left()}
    # What waits is known at any time, however long the server wants to be left alone.
    server.script = lambda _: Response(503, b"", {"Retry-After": "3600"}) if is_down else None
    assert eventually(lambda: made.index.targets._running["down"].worker._not_before > time.monotonic() + 60)
    keep(made.index, instance(6))
    assert eventually(lambda: 6 == len([name for name, *_ in made.left() if name == "down"]))
    is_down = False
    made.index.targets.use(made.index.targets.settings)
    assert made.is_published()
    assert here(tmp_path / "data") == there(server)
    assert {} == made.index.targets.failing()
    other.close()


def test_a_restart_goes_on_where_it_was(site: Sites, server: FhirServer, tmp_path: Path) -> None:
    made = site(target(server))
    keep(made.index, instance(1))
    assert made.is_published()
    made.close()
    count = len(server.writes)
    made = site(target(server))
    keep(made.index, instance(2))
    assert made.is_published()
    bodies = [one.json for one in server.writes[count:]]
    assert {f"ImagingStudy/{ROOT}.2"} == {
        entry["request"]["url"]
        for body in bodies
        for entry in body["entry"]
        if entry["request"]["url"].startswith("ImagingStudy")
    }
    assert here(tmp_path / "data") == there(server)


def test_never_two_of_one_study_at_the_same_time(site: Sites, server: FhirServer) -> None:
    running: list[str] = []
    faults = []

    def slow(request: Request) -> Response | None:
        if request.is_write:
            urls = [entry["request"]["url"] for entry in request.json["entry"]]
            mine = [url for url in urls if url.startswith("ImagingStudy")]
            faults.extend(set(mine) & set(running))
            running.extend(mine)
            # The first is alone: it brings the endpoint. The second waits for another one.
            if len(server.writes) > 1:
                eventually(lambda: server.most_at_once > 1, 50)
            for url in mine:
                running.remove(url)
        return None

    server.script = slow
    made = site(target(server, concurrency=4))
    for number in range(1, 4):
        for study in range(1, 9):
            keep(made.index, instance(study, 1, number))
    assert made.is_published()
    assert 1 < server.most_at_once <= 4
    assert [] == faults
    assert [3] * 8 == [one["numberOfInstances"] for one in server.of("ImagingStudy")]


def test_deleted_studies_go_and_what_only_they_had(site: Sites, server: FhirServer, tmp_path: Path) -> None:
    made = site(target(server))
    for study in (1, 2):
        keep(made.index, instance(study))
    assert made.is_published()
    made.index.delete(f"{ROOT}.1")
    assert eventually(lambda: [f"{ROOT}.2"] == [one["id"] for one in server.of("ImagingStudy")])
    assert made.is_published()
    assert here(tmp_path / "data") == there(server)
    assert [f"{ROOT}.2"] == [one["id"] for one in server.of("ImagingStudy")]
    assert 1 == len(server.of("Patient"))
    # It comes again.
    keep(made.index, instance(1))
    assert made.is_published()
    assert here(tmp_path / "data") == there(server)


def test_the_last_version_does_not_wait_for_the_interval(site: Sites, server: FhirServer) -> None:
    may_go = threading.Event()
    server.script = lambda request: may_go.wait(60) and None if request.is_write else None
    made = site(target(server, interval=3600))
    keep(made.index, instance(1, 1, 1))
    assert eventually(lambda: len(server.writes) == 1)
    # The association ends while the first version is being sent.
    keep(made.index, instance(1, 1, 2))
    made.index.association_ended("test")
    name = f"ImagingStudy/{ROOT}.1"
    assert eventually(lambda: here(made.index.data)[name]["numberOfInstances"] == 2)
    may_go.set()
    assert made.is_published()
    assert here(made.index.data) == there(server)


def test_an_operator_who_says_now_is_obeyed_at_once(site: Sites, server: FhirServer) -> None:
    """Also where the server has asked for a day of peace, and from another process."""
    server.script = lambda _: Response(429, None, {"Retry-After": "86400"})
    made = site(target(server))
    keep(made.index, instance())
    assert eventually(lambda: "429" in made.index.targets.failing().get("ehr", ""))
    server.script = lambda _: None
    other = Index(made.index.data, STORAGE)
    assert 1 == other.targets.listing.retry(TargetFilter(target="ehr"))
    other.close()
    assert made.is_published()
    assert here(made.index.data) == there(server)


def test_many_that_may_not_be_sent_now_keep_no_other_waiting(
    site: Sites, server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LOOKED_AT", 2)
    made = site(target(server, interval=3600))
    for number in (1, 2):
        for study in range(1, 6):
            keep(made.index, instance(study, 1, number))
        assert eventually(lambda: 5 == len(server.of("ImagingStudy")))
    keep(made.index, instance(6))
    assert eventually(lambda: f"ImagingStudy/{ROOT}.6" in server.resources)
    made.index.association_ended("test")
    assert made.is_published()
    assert here(made.index.data) == there(server)


def test_the_publisher_does_not_wait_for_what_a_target_reads_and_writes(
    site: Sites, server: FhirServer
) -> None:
    targets = site(target(server)).index.targets
    is_over = threading.Event()

    def publish() -> None:
        targets.study_published(1, None, True)
        targets.failing()
        targets.look()
        is_over.set()

    with targets._running["ehr"].worker._deciding:
        threading.Thread(target=publish, daemon=True).start()
        assert is_over.wait(60)
