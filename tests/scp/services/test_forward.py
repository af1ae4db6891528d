"""Forwarding to scripted peers: what is delivered, retried, given up; and what an operator does about it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from index import Index, Origin, OutboxFilter, RouteSettings
from scp.commands.main import register_commands
from scp.observing.audit.messages import Source
from scp.observing.audit.trail import AuditTrail
from scp.observing.metrics import Metrics
from scp.services import delivery
from scp.services.forward import Forwarding
from scp.settings.audit import AuditSettings
from scp.settings.sections import Configuration, Peer
from support.archive import Destination
from support.daemon import eventually
from support.dicom import ROOT, encoded, instance
from support.filling import STORAGE, keep
from support.peer import CT
from support.syslog_server import SyslogServer

MR = "1.2.840.10008.5.1.4.1.1.4"


class Site:
    """An index that forwards all to the peers A and B."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.routes = (RouteSettings(to=["A", "B"]),)
        self.configuration = Configuration(routes=self.routes)
        self.metrics = Metrics()
        self.index = Index(data, STORAGE, routes=self.routes)
        self.index.serve()
        self.forwarding = Forwarding(self.index, lambda: self.configuration, self.metrics)

    def peers(self, **ports: int) -> None:
        peers = tuple(Peer(aet=aet, host="127.0.0.1", port=port) for aet, port in ports.items())
        self.configuration = self.configuration.model_copy(update={"peers": peers})

    def left(self) -> list[tuple[str, str, str, int]]:
        entries = self.index.outbox.listing.entries(OutboxFilter(), waiting=True)
        return [(one.peer, one.uid, one.state, one.attempts) for one in entries]

    def empties(self) -> bool:
        return eventually(lambda: not self.left())

    def close(self) -> None:
        self.forwarding.stop()
        self.index.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(delivery, "QUIET_SECONDS", 0.3)
    made = Site(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def destination() -> Iterator[Callable[..., Destination]]:
    made = []

    def make(*arguments: object, **options: object) -> Destination:
        made.append(Destination(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sent(*numbers: int) -> list[tuple[str, bytes]]:
    return [(f"{ROOT}.1.1.{n}", encoded(instance(number=n))) for n in numbers]


def test_each_peer_gets_every_instance_in_order_of_arrival(
    site: Site, destination: Callable[..., Destination]
) -> None:
    first, second = destination(), destination()
    site.peers(A=first.port, B=second.port)
    site.forwarding.start()
    for number in range(1, 6):
        keep(site.index, instance(number=number))
    assert site.empties()
    assert sent(1, 2, 3, 4, 5) == first.received == second.received
    assert {} == site.forwarding.failing()
    assert b'forwards_total{outcome="sent",peer="A"} 5.0' in site.metrics.text()


def test_a_duplicate_and_what_came_from_the_peer_are_not_sent(site: Site) -> None:
    site.peers(A=1, B=1)
    keep(site.index, instance(number=1), Origin("A", "US", "", ""))
    keep(site.index, instance(number=1))
    assert [("B", f"{ROOT}.1.1.1", "waiting", 0)] == site.left()


def test_a_peer_that_is_down_costs_no_attempt(site: Site, destination: Callable[..., Destination]) -> None:
    first = destination()
    site.peers(A=1, B=first.port)
    site.forwarding.start()
    for number in (1, 2, 3):
        keep(site.index, instance(number=number))
    assert eventually(lambda: len(site.left()) == 3 and bool(site.forwarding.failing()))
    assert {("A", "waiting", 0)} == {(peer, state, tries) for peer, _, state, tries in site.left()}
    (status,) = site.index.outbox.listing.status()
    assert ("A", 3, 0, True) == (
        status.peer,
        status.waiting,
        status.dead,
        "cannot be reached" in status.error,
    )
    second = destination()
    site.peers(A=second.port, B=first.port)
    assert site.empties()
    assert sent(1, 2, 3) == second.received


@pytest.mark.parametrize("status", [0xA700, None])
def test_what_the_peer_cannot_take_now_is_sent_again_first(
    site: Site, destination: Callable[..., Destination], status: int | None
) -> None:
    peer = destination(lambda number: status if number in (2, 3) else 0)
    site.peers(A=peer.port, B=peer.port)
    for number in (1, 2, 3):
        keep(site.index, instance(number=number))
    site.index.outbox.listing.drop(OutboxFilter("B"), waiting=True)
    site.forwarding.start()
    assert site.empties()
    assert sent(1, 2, 3) == peer.received


@pytest.mark.parametrize(
    ("status", "accepts", "why"),
    [
        (0xC000, CT, "answered C000"),
        (0xA900, CT, "answered A900"),
        (0, MR, f"no context is accepted for SOP Class {CT}"),
    ],
)
def test_what_the_peer_never_takes_is_a_dead_letter(
    site: Site, destination: Callable[..., Destination], status: int, accepts: str, why: str
) -> None:
    peer = destination(
        lambda _: status, accepts=lambda sop_class, syntaxes: syntaxes[0] if sop_class == accepts else None
    )
    site.peers(A=peer.port, B=peer.port)
    site.forwarding.start()
    keep(site.index, instance())
    site.index.outbox.listing.drop(OutboxFilter("B"), waiting=True)
    assert eventually(lambda: [("A", f"{ROOT}.1.1.1", "dead", 8)] == site.left())
    (entry,) = site.index.outbox.listing.entries(OutboxFilter("A", f"{ROOT}.1"))
    assert why == entry.error
    good = destination()
    site.peers(A=good.port, B=good.port)
    assert 1 == site.index.outbox.listing.retry(OutboxFilter(uid=f"{ROOT}.1"))
    site.forwarding.reload()
    assert site.empties()
    assert sent(1) == good.received


def test_a_warning_is_delivered(site: Site, destination: Callable[..., Destination]) -> None:
    peer = destination(lambda _: 0xB007)
    site.peers(A=peer.port, B=peer.port)
    site.forwarding.start()
    keep(site.index, instance())
    assert site.empties()


def test_an_instance_of_another_kind_opens_another_association(
    site: Site, destination: Callable[..., Destination]
) -> None:
    peer = destination()
    site.peers(A=peer.port, B=peer.port)
    site.forwarding.start()
    keep(site.index, instance(number=1))
    assert site.empties()
    keep(site.index, instance(number=2, SOPClassUID=MR))
    assert site.empties()
    assert 4 == len(peer.received)


def test_what_is_deleted_is_not_sent(site: Site) -> None:
    site.peers(A=1, B=1)
    for number in (1, 2):
        keep(site.index, instance(1, 1, number))
    keep(site.index, instance(1, 2, 3))
    site.index.delete(f"{ROOT}.1.1.2")
    assert {f"{ROOT}.1.1.1", f"{ROOT}.1.2.3"} == {uid for _, uid, _, _ in site.left()}
    site.index.delete(f"{ROOT}.1")
    assert [] == site.left()


def test_a_stop_interrupts_a_peer_that_is_silent(site: Site, destination: Callable[..., Destination]) -> None:
    reached = []

    def answer(number: int) -> int:
        reached.append(number)
        eventually(lambda: site.forwarding._stopping)
        return 0

    peer = destination(answer)
    site.peers(A=peer.port, B=peer.port)
    site.forwarding.start()
    keep(site.index, instance())
    assert eventually(lambda: bool(reached))
    site.forwarding.stop()
    assert 0 < len(site.left())


def test_a_thread_that_ends_before_others_has_not_failed(
    site: Site, destination: Callable[..., Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = destination()
    site.peers(A=peer.port, B=peer.port)
    site.forwarding.start()
    keep(site.index, instance())
    assert site.empties()
    first, thread = site.forwarding._worker, site.forwarding._senders[0]
    stop = first.stop

    def last(seconds: float | None) -> None:
        eventually(lambda: thread.state().failures > 0 or not thread._thread.is_alive())
        stop(seconds)

    monkeypatch.setattr(first, "stop", last)
    site.forwarding.stop()
    assert 0 == thread.state().failures


def test_the_command(site: Site) -> None:
    site.peers(A=1, B=1)
    keep(site.index, instance())
    keep(site.index, instance(number=2))
    (first, *_) = site.index.outbox.due("A", 1)
    site.index.outbox.give_up(first, "answered C000")

    def run(*arguments: str) -> tuple[int, str]:
        command = ["forward", *arguments, "--data", str(site.data)]
        done = CliRunner().invoke(register_commands(), command)
        return done.exit_code, done.stdout

    (listed,) = json.loads(run("list", "--json")[1])
    assert ("A", f"{ROOT}.1.1.1", f"{ROOT}.1", "dead", 1, "answered C000") == tuple(
        listed[key] for key in ("peer", "uid", "study", "state", "attempts", "error")
    )
    assert 4 == len(json.loads(run("list", "--waiting", "--json")[1]))
    status = json.loads(run("status", "--json")[1])
    assert [("A", 1, 1), ("B", 2, 0)] == [(one["peer"], one["waiting"], one["dead"]) for one in status]
    assert 2 == run("retry")[0]
    assert 2 == run("retry", "nothing")[0]
    assert (1, '{"retried":0}\n') == run("retry", "--peer", "B", "--json")
    assert (0, '{"retried":1}\n') == run("retry", f"{ROOT}.1", "--json")
    assert 1 == run("drop", "--all")[0]
    assert (0, '{"dropped":4}\n') == run("drop", "--all", "--waiting", "--json")


def test_the_audit_trail_is_told_of_each_study(site: Site, destination: Callable[..., Destination]) -> None:
    log = SyslogServer("udp")
    audit = AuditTrail(
        AuditSettings(syslog=log.address), Source("PACS", "", "US"), site.index, site.index.workers
    )
    audit.start()
    site.metrics.use_audit(audit)
    peers = {name: destination() for name in "AB"}
    site.peers(**{name: peer.port for name, peer in peers.items()})
    for number in (1, 2):
        keep(site.index, instance(number=number))
    site.forwarding.start()
    assert site.empties()
    assert eventually(lambda: len(log.of("110104")) == 2)
    for told in (*log.of("110102"), *log.of("110104")):
        assert (f"{ROOT}.1", "P1", {CT: 2}) == (told.study, told.patient, told.classes)
        assert ["110153", "110152"] == [role for _, role, _ in told.parties]
    assert {"A", "B"} == {told.parties[1][0] for told in log.of("110104")}
    assert 2 == len(log.of("110102"))
    audit.stop()
    log.close()
