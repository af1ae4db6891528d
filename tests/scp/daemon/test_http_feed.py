"""The change feed over HTTP, of a whole daemon: JSON lines, long polling, server-sent events."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from index import Index
from index.publication.feed import prune
from index.web import feed
from scp.daemon.http.application import Application, guarded
from scp.daemon.http.server import HttpServer
from scp.settings.http import HttpSettings
from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep

SECONDS = 120.0
LINES = "application/x-ndjson"


class Site:
    """An index that publishes when it is told to, and its feed over HTTP."""

    def __init__(self, data: Path) -> None:
        self.index = Index(data, STORAGE)
        self.service = feed.FeedService(self.index)
        settings = HttpSettings(port=0)

        def make() -> Application:
            return guarded(self.service.routes(), settings)

        self.server = HttpServer(settings, make)
        self.address = self.server.start()

    def publish(self, *studies: int, number: int = 1) -> None:
        for study in studies:
            keep(self.index, instance(study, 1, number))
        self.index.publish()

    @contextmanager
    def ask(self, query: str = "", method: str = "GET", **headers: str) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(*self.address, timeout=SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/changes{query}", headers=named)
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    def lines(self, query: str = "") -> list[dict[str, Any]]:
        with self.ask(query) as answer:
            assert (200, LINES) == (answer.status, answer.getheader("content-type"))
            return [json.loads(line) for line in answer.read().splitlines()]

    def close(self) -> None:
        self.server.stop()
        self.index.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "data")
    yield made
    made.close()


def events(answer: http.client.HTTPResponse, count: int) -> list[tuple[int, dict[str, Any]]]:
    """Read so many events from a stream."""
    found = []
    number = 0
    while len(found) < count:
        name, _, value = answer.readline().decode().rstrip("\n").partition(": ")
        if name == "id":
            number = int(value)
        elif name == "data":
            found.append((number, json.loads(value)))
    return found


def test_a_reader_gets_what_changes_prints_in_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE", 4)
    assert [] == site.lines()
    site.publish(1, 2)
    printed = cli("changes", "--data", str(site.index.data), "--json").stdout.splitlines()
    found = site.lines()
    assert [json.loads(line) for line in printed] == found
    assert len(found) > 2 * feed.PAGE
    assert found[5:] == site.lines(f"?since={found[4]['seq']}")
    assert [] == site.lines(f"?since={found[-1]['seq']}")


def test_a_reader_waits_for_the_next_entry(site: Site) -> None:
    site.publish(1)
    last = site.index.last_change()
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.extend(site.lines(f"?since={last}&wait=60")))
    reader.start()
    assert eventually(lambda: site.service._watch._waiting == 1)
    site.publish(2)
    reader.join(SECONDS)
    assert f"{ROOT}.2" in {row["id"] for row in found}
    assert last + 1 == found[0]["seq"]
    # Nobody waits any more: nothing looks.
    looking = site.service._watch._looking
    assert eventually(lambda: looking is not None and looking.done())


def test_a_reader_that_has_waited_for_nothing_gets_nothing(site: Site) -> None:
    assert [] == site.lines("?wait=1")


def test_events_go_on_from_the_last_id(site: Site) -> None:
    site.publish(1)
    with site.ask(Accept="text/event-stream") as answer:
        assert ("text/event-stream; charset=utf-8", "no-store") == (
            answer.getheader("content-type"),
            answer.getheader("cache-control"),
        )
        first = events(answer, 3)
        site.publish(2)
        rest = events(answer, site.index.last_change() - 3)
    assert site.lines() == [row for _, row in first + rest]
    assert [row["seq"] for _, row in first] == [number for number, _ in first]
    last = str(first[-1][0])
    with site.ask("?since=0", Accept="text/event-stream", Last_Event_ID=last) as answer:
        assert rest == events(answer, len(rest))
    assert eventually(lambda: site.service._readers == 0)


def test_a_silent_stream_has_a_heartbeat(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.05)
    with site.ask(Accept="text/event-stream") as answer:
        assert b": nothing new\n" == answer.readline()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?since=-1", "since '-1': allowed is a whole number from 0 to 9223372036854775807"),
        ("?since=1.5", "since '1.5'"),
        ("?since=%D9%A1", "allowed is a whole number"),
        ("?since=9223372036854775808", "allowed is a whole number"),
        ("?wait=61", "wait '61': allowed is a whole number from 0 to 60"),
        ("?wait=", "wait ''"),
        ("?form=x", "'form': no such parameter; allowed are since and wait"),
    ],
)
def test_what_is_not_allowed_is_named(site: Site, query: str, said: str) -> None:
    with site.ask(query) as answer:
        assert 400 == answer.status
        assert said in json.load(answer)["error"]


def test_entries_that_are_deleted_are_said_to_be_gone(site: Site) -> None:
    site.publish(1)
    prune(site.index._database, 1)
    with site.ask("?since=1") as answer:
        assert 410 == answer.status
        assert "have been deleted" in json.load(answer)["error"]
    assert [site.index.last_change()] == [row["seq"] for row in site.lines()]


def test_there_is_a_limit_of_readers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "READERS", 1)
    with site.ask(Accept="text/event-stream") as first:
        assert 200 == first.status
        with site.ask() as second:
            assert 503 == second.status
    assert eventually(lambda: site.service._readers == 0)
    assert [] == site.lines()


def test_head_has_no_end_to_wait_for(site: Site) -> None:
    with site.ask(method="HEAD", Accept="text/event-stream") as answer:
        assert (200, b"") == (answer.status, answer.read())


def test_a_daemon_serves_it(shared_daemon: Daemon) -> None:
    connection = http.client.HTTPConnection(*shared_daemon.http, timeout=SECONDS)
    connection.request("GET", "/changes?wait=0")
    answer = connection.getresponse()
    assert (200, LINES) == (answer.status, answer.getheader("content-type"))
    answer.read()
    connection.request("GET", "/changes", headers={"Authorization": "Bearer x"})
    assert 401 == connection.getresponse().status
    connection.close()
