"""Health, metrics and their dashboard, asked from a running daemon."""

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from index import State, WorkerState
from scp.daemon.health import health
from scp.daemon.service import log_uncaught
from scp.observing.metrics import OTHER_PEERS, PEERS, Metrics
from support.daemon import Daemon, eventually, run
from support.dicom import instance, save
from support.modality import begun, create
from support.peer import Parrot, Running
from support.worklist import findscu, query

DASHBOARD = Path(__file__).parents[3] / "systemd" / "grafana-dashboard.json"


def get(daemon: Daemon, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{daemon.http[0]}:{daemon.http[1]}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def values(text: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_a_daemon_that_is_well(shared_daemon: Daemon) -> None:
    assert (200, "ok\n") == get(shared_daemon, "/health/live")
    status, said = get(shared_daemon, "/health/ready")
    assert (200, "ok") == (status, json.loads(said)["status"])
    checks = {"accept loop", "journal", "disk", "publisher"}
    checks |= {"completion", "dicom-listener", "http", "indexer", "journal", "settling", "storage-commitment"}
    assert dict.fromkeys(checks, "ok") == json.loads(said)["checks"]
    assert 404 == get(shared_daemon, "/nonsense")[0]


def test_no_http(start: Callable[..., Daemon]) -> None:
    assert start("--no-http").http is None


def test_below_the_watermark_it_is_not_ready(start: Callable[..., Daemon]) -> None:
    daemon = start(IMAGINGSTUDYD_STORAGE__WATERMARK=str(1 << 60))
    status, said = get(daemon, "/health/ready")
    assert (503, "unavailable") == (status, json.loads(said)["status"])
    assert "watermark" in json.loads(said)["checks"]["disk"]


def test_a_publisher_that_cannot_write_degrades_readiness(daemon: Daemon, tmp_path: Path) -> None:
    """A file stands where a folder of resources should be."""
    (daemon.data / "fhir").mkdir(exist_ok=True)
    (daemon.data / "fhir/r4").write_text("in the way")
    daemon.send(save(instance(), tmp_path / "one.dcm"), tool="storescu")
    assert eventually(lambda: "degraded" == json.loads(get(daemon, "/health/ready")[1])["status"])
    assert 200 == get(daemon, "/health/ready")[0]
    (daemon.data / "fhir/r4").unlink()
    assert eventually(lambda: "ok" == json.loads(get(daemon, "/health/ready")[1])["status"])


def test_stores_are_counted(daemon: Daemon, tmp_path: Path) -> None:
    sent = [save(instance(1, 1, number), tmp_path / "send" / f"{number}.dcm") for number in (1, 2)]
    for _ in range(2):
        assert 0 == daemon.send(tmp_path / "send", options=("-aet", "CT1")).returncode
    duplicates = 'imagingstudyd_stores_total{calling_aet="CT1",outcome="duplicate"}'
    assert eventually(lambda: 2 == values(get(daemon, "/metrics")[1]).get(duplicates))
    found = values(get(daemon, "/metrics")[1])
    assert 2 == found['imagingstudyd_stores_total{calling_aet="CT1",outcome="stored"}']
    assert 4 == found["imagingstudyd_indexed_seconds_count"]
    assert 4 == found["imagingstudyd_store_seconds_count"]
    assert found['imagingstudyd_stored_bytes_total{calling_aet="CT1"}'] > 2 * sent[0].stat().st_size * 0.8
    assert eventually(
        lambda: values(get(daemon, "/metrics")[1])["imagingstudyd_publication_seconds_count"] > 0
    )
    after = values(get(daemon, "/metrics")[1])
    # Duplicates change nothing, and the study was published when the first association ended.
    assert 1 == after["imagingstudyd_resource_seconds_count"]
    assert after["imagingstudyd_resource_seconds_sum"] > after["imagingstudyd_publication_seconds_sum"] / 2
    assert found["imagingstudyd_disk_free_bytes"] > 0
    assert found["imagingstudyd_disk_free_inodes"] > 0
    assert "Doe" not in get(daemon, "/metrics")[1]


def test_other_services_and_refusals_are_counted(start: Callable[..., Daemon], tmp_path: Path) -> None:
    titles = '["IMAGINGSTUDYD", "WL"]'
    daemon = start(IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all", IMAGINGSTUDYD_DICOM__CALLED_AETS=titles)
    address = ("127.0.0.1", str(daemon.port))
    assert 0 == run("echoscu", "-aec", "WL", *address).returncode
    assert 0 != run("echoscu", "-aec", "THEM", *address).returncode
    findscu(daemon.port, query(), tmp_path)
    findscu(daemon.port, query(PatientID="P1"), tmp_path)
    assert 0x0000 == create(daemon.port, "1.2.3", begun(study_uid="1.2.3.4")).Status
    assert 0x0111 == create(daemon.port, "1.2.3", begun(study_uid="1.2.3.4")).Status
    found = values(get(daemon, "/metrics")[1])
    name = "imagingstudyd_operations_total"
    assert {
        f'{name}{{service="echo",status="0000"}}': 1,
        f'{name}{{service="worklist",status="0000"}}': 2,
        f'{name}{{service="mpps",status="0000"}}': 1,
        f'{name}{{service="mpps",status="0111"}}': 1,
    } == {key: value for key, value in found.items() if key.startswith(name)}
    assert 1 == found['imagingstudyd_associations_refused_total{reason="called_aet"}']


def test_callers_beyond_the_limit_are_counted() -> None:
    metrics = Metrics()
    with Running(limits={"associations": 1}, metrics=metrics) as server, Parrot(server.port) as held:
        held.associate()
        with Parrot(server.port) as other:
            assert 0x03 == other.associate()[0]
    found = values(metrics.text().decode())
    assert 1 == found['imagingstudyd_associations_refused_total{reason="local_limit"}']


def test_names_are_as_prometheus_wants_them() -> None:
    metrics = Metrics()
    metrics.add_gauges(lambda: State(0, 0, False, 0, 0, 0.0, 0, 1, 0), lambda: 0, lambda: [a_worker()])
    text = metrics.text().decode()
    kinds = dict(re.findall(r"^# TYPE (imagingstudyd_\S+) (\S+)$", text, re.MULTILINE))
    assert kinds
    for name, kind in kinds.items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert re.fullmatch(r"[a-z_]+", name)


def test_made_up_peers_are_bounded() -> None:
    metrics = Metrics()
    for number in range(PEERS + 50):
        metrics.association_over(f"AET{number}")
    found = values(metrics.text().decode())
    assert 50 == found[f'imagingstudyd_associations_total{{calling_aet="{OTHER_PEERS}"}}']
    assert PEERS + 1 == sum(name.startswith("imagingstudyd_associations_total") for name in found)


class Part:
    """A listener and an index that move or do not."""

    def __init__(self, *, moves: bool, state: State) -> None:
        self.makes_progress = lambda _: moves
        self.state = lambda: state
        self.targets = self
        self.failing = dict


@pytest.mark.parametrize(
    ("moves", "state", "status"),
    [
        (True, State(0, 0, False, 0, 0, 0, 0, 9, 9), "ok"),
        (False, State(0, 0, False, 0, 0, 0, 0, 9, 9), "unavailable"),
        (True, State(0, 0, False, 0, 0, 0, 0, 8, 9, shortage="full"), "unavailable"),
        (True, State(0, 0, False, 1, 0, 61, 0, 9, 9), "degraded"),
        (True, State(0, 0, False, 1, 1, 0, 0, 9, 9), "degraded"),
        (True, State(0, 0, False, 0, 0, 0, None, 9, 9, database="away"), "degraded"),
        (True, State(0, 0, False, 0, 0, 0, None, 9, 9, database="away", takes=False), "unavailable"),
        (True, State(0, 0, False, 0, 0, 0, 0, 9, 9, silent_nodes=("host:/data",)), "degraded"),
    ],
)
def test_what_makes_it_unwell(moves: bool, state: State, status: str) -> None:  # noqa: FBT001
    part = Part(moves=moves, state=state)
    assert status == health(part, part).status  # type: ignore[arg-type]


def test_nodes_and_the_database_have_metrics() -> None:
    """The label has three values, however many nodes there are."""
    metrics = Metrics()
    nodes = {"served": 2, "silent": 1, "stopped": 0}
    state = State(0, 0, False, 0, 0, 0, 0, 9, 9, nodes=nodes)
    metrics.add_gauges(lambda: state, lambda: 0)
    told = values(metrics.text().decode())
    assert nodes == {name: told[f'imagingstudyd_nodes{{state="{name}"}}'] for name in nodes}
    assert 1 == told["imagingstudyd_database_up"]
    away = Metrics()
    away.add_gauges(lambda: State(0, 0, False, 0, 0, 0, None, 9, 9, database="away"), lambda: 0)
    told = values(away.text().decode())
    assert (0, 0) == (told["imagingstudyd_database_up"], told["imagingstudyd_journal_fill_ratio"])
    assert "imagingstudyd_conflicts" not in told


def a_worker(**changes: Any) -> WorkerState:
    usual = {"name": "hl7", "is_alive": True, "failures": 0, "fault": "", "silent": 0.0}
    return WorkerState(**{**usual, "needs_restart": False, **changes})


@pytest.mark.parametrize(
    ("worker", "status", "said"),
    [
        (a_worker(), "ok", "ok"),
        (a_worker(failures=3), "ok", "ok"),
        (a_worker(failures=1, fault="OSError"), "degraded", "failed: OSError"),
        (a_worker(silent=130.0), "degraded", "no sign of life for 130 s"),
        (a_worker(is_alive=False), "degraded", "has ended"),
        (a_worker(name="publisher", fault="OSError"), "degraded", "failed: OSError"),
    ],
)
def test_threads_are_looked_at(worker: WorkerState, status: str, said: str) -> None:
    part: Any = Part(moves=True, state=State(0, 0, False, 0, 0, 0, 0, 9, 9))
    found = health(part, part, [worker])
    assert (status, said, True) == (found.status, found.checks[worker.name], found.is_ready)
    metrics = Metrics()
    metrics.add_gauges(part.state, lambda: 0, lambda: [worker])
    told = values(metrics.text().decode())
    label = f'{{worker="{worker.name}"}}'
    assert float(said == "ok") == told[f"imagingstudyd_worker_up{label}"]
    assert worker.failures == told[f"imagingstudyd_worker_failures_total{label}"]
    assert worker.silent == told[f"imagingstudyd_worker_silent_seconds{label}"]


def test_every_thread_of_a_daemon_is_in_health_and_metrics(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The folder cannot be read, the upstream worklist is nowhere: that is told, and senders are served."""
    file = tmp_path / "config.toml"
    file.write_text(
        f'[retention]\ndays = 1\n[worklist]\nhl7_port = 0\nfolder = "{tmp_path}/nowhere"\n'
        '[worklist.upstream]\npeer = "RIS"\n[[peers]]\naet = "RIS"\nhost = "127.0.0.1"\nport = 1\n'
    )
    daemon = start("--config", str(file))
    bad = {"worklist-folder": "failed: FileNotFoundError", "worklist-upstream": "failed: Unreachable"}
    well = {
        "completion",
        "dicom-listener",
        "hl7",
        "http",
        "indexer",
        "publisher",
        "retention",
        "settling",
        "storage-commitment",
    }

    def checks() -> dict[str, str]:
        found: dict[str, str] = json.loads(get(daemon, "/health/ready")[1])["checks"]
        return {name: said for name, said in found.items() if name in well | bad.keys()}

    assert eventually(lambda: checks() == {**dict.fromkeys(well, "ok"), **bad})
    assert 200 == get(daemon, "/health/ready")[0]
    told = values(get(daemon, "/metrics")[1])
    up = {name: value for name, value in told.items() if name.startswith("imagingstudyd_worker_up")}
    assert {
        f'imagingstudyd_worker_up{{worker="{name}"}}': float(name in well) for name in well | bad.keys()
    } == up
    (tmp_path / "nowhere").mkdir()
    assert eventually(lambda: "ok" == checks()["worklist-folder"])


def test_a_thread_that_ends_is_logged_as_all_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a bare traceback, whose lines are no JSON and may quote what a caller sent."""
    monkeypatch.setattr(threading, "excepthook", log_uncaught)

    def fails() -> None:
        raise ValueError("odd")

    with capture_logs() as logged:
        thread = threading.Thread(target=fails, name="association-1")
        thread.start()
        thread.join()
    assert [("thread_failed", "association-1", "ValueError")] == [
        (event["event"], event["thread"], event["error"]) for event in logged
    ]


def test_the_dashboard_shows_metrics_that_exist() -> None:
    metrics = Metrics()
    metrics.add_gauges(lambda: State(0, 0, False, 0, 0, 0.0, 0, 1, 0), lambda: 0, lambda: [a_worker()])
    known = set(re.findall(r"^# TYPE (\S+)", metrics.text().decode(), re.MULTILINE))
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    used = {name for expression in asked for name in re.findall(r"(?:imagingstudyd|process)_\w+", expression)}
    assert used
    assert set() == used - known
    assert {name for name in known if name.startswith("imagingstudyd") and name.endswith("_total")} <= used


def test_a_file_system_without_a_number_of_inodes_has_no_such_gauge() -> None:
    """Some have none (btrfs): statvfs(3) answers 0 for f_files."""
    for inodes, there in ((None, False), (0, True), (7, True)):
        metrics = Metrics()
        metrics.add_gauges(lambda n=inodes: State(0, 0, False, 0, 0, 0.0, 0, 1, 0, n), lambda: 0)
        assert there == (b"\nimagingstudyd_disk_free_inodes " in metrics.text())
