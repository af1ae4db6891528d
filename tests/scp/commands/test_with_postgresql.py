"""`migrate-index` and `reindex` with PostgreSQL, as an operator runs them between two runs of the daemon."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance, save
from support.filling import files
from support.postgresql import emptied


@pytest.fixture
def url(postgresql_server: str) -> str:
    return emptied(postgresql_server)


def send(daemon: Daemon, study: int, folder: Path) -> None:
    for number in (1, 2, 3):
        save(instance(study, 1, number), folder / f"send{study}" / f"{number}.dcm")
    assert 0 == daemon.send(folder / f"send{study}").returncode
    assert eventually(lambda: daemon.resource(f"{ROOT}.{study}", "r5").exists())


def changes(data: Path, **environment: str) -> list[str]:
    listed = cli("changes", "--data", str(data), "--json", **environment)
    assert 0 == listed.returncode, listed.stderr
    return listed.stdout.splitlines()


def test_from_sqlite_to_postgresql_and_back(url: str, start: Callable[..., Daemon], tmp_path: Path) -> None:
    data = tmp_path / "data"
    here = f"sqlite:///{data}/index.sqlite"
    daemon = start()
    send(daemon, 1, tmp_path)
    refused = cli("migrate-index", here, url, "--data", str(data))
    assert (1, True) == (refused.returncode, "in use by a running imagingstudyd" in refused.stderr)
    assert 0 == daemon.stop()
    before, resources = changes(data), files(data / "fhir")

    done = cli("migrate-index", here, url, "--data", str(data))
    assert 0 == done.returncode, done.stderr
    assert "FROM and TO are equal in row counts, content and last ids" in done.stdout
    for phase in ("copying", "comparing"):
        assert 1 == sum(line.startswith(f"{phase}: ") for line in done.stderr.splitlines())
    assert "set [index] url to TO" in done.stderr
    (data / "index.sqlite").rename(tmp_path / "old.sqlite")

    on_server = {"IMAGINGSTUDYD_INDEX__URL": url}
    assert before == changes(data, **on_server)
    daemon = start(**on_server)
    send(daemon, 2, tmp_path)
    assert 0 == daemon.stop()
    more = changes(data, **on_server)
    assert before == more[: len(before)]
    assert len(more) > len(before)
    assert resources.items() < files(data / "fhir").items()

    resources = files(data / "fhir")
    rebuilt = cli("reindex", "--data", str(data), **on_server)
    assert (0, "6 instances\n") == (rebuilt.returncode, rebuilt.stdout), rebuilt.stderr
    assert (more, resources) == (changes(data, **on_server), files(data / "fhir"))

    back = cli("migrate-index", url, here, "--data", str(data), "--json")
    assert 0 == back.returncode, back.stderr
    assert {"instance": 6, "study": 2}.items() <= json.loads(back.stdout)["tables"].items()
    assert more == changes(data)
    daemon = start()
    send(daemon, 3, tmp_path)
    assert 0 == daemon.stop()
    assert 0 == cli("verify", "--data", str(data), "--grace", "0").returncode


def test_urls_are_checked_as_in_the_configuration(tmp_path: Path) -> None:
    for source, target, said in (
        ("mysql://u:secret@h/d", "postgresql://u:secret@h/d", "FROM: allowed are sqlite:///file and"),
        ("sqlite:////a", "sqlite://", "TO: names no file"),
        ("sqlite:////a", "sqlite:////a", "FROM and TO are the same"),
    ):
        refused = cli("migrate-index", source, target, "--data", str(tmp_path))
        assert (2, "") == (refused.returncode, refused.stdout)
        assert said in refused.stderr
        assert "secret" not in refused.stderr


def test_faults_are_one_line(url: str, tmp_path: Path) -> None:
    """No server, no database, no file, no index: status 1, and no password."""
    (tmp_path / "data/objects").mkdir(parents=True)
    away = "postgresql://u:secret@127.0.0.1:1/d"
    back = f"sqlite:///{tmp_path}/back.sqlite"
    for source, target in (
        (away, back),
        (url.replace("@/postgres?", "@/nowhere?"), back),
        (f"sqlite:///{tmp_path}/none.sqlite", url),
        (url, back),
    ):
        refused = cli("migrate-index", source, target, "--data", str(tmp_path / "data"))
        assert (1, "") == (refused.returncode, refused.stdout)
        assert refused.stderr.startswith("imagingstudyd: ")
        assert "Traceback" not in refused.stderr
        assert "secret" not in refused.stderr
    assert [] == list(tmp_path.glob("*.sqlite*"))


def test_a_restored_dump_is_proven_by_verify(url: str, start: Callable[..., Daemon], tmp_path: Path) -> None:
    """The commands that `backup` prints, run as they stand; then the daemon serves from what they restore."""
    on_server = {"IMAGINGSTUDYD_INDEX__URL": url}
    daemon = start(**on_server)
    send(daemon, 1, tmp_path)
    target = tmp_path / "a backup"
    refused = cli("backup", str(target), "--data", str(daemon.data), **on_server)
    assert 1 == refused.returncode
    commands = [line.strip() for line in refused.stderr.splitlines() if line.startswith("    ")]
    save_it, (*restore_it, verify_it) = commands[:3], commands[3:]
    assert ["mkdir", "pg_dump", "cp"] == [command.split()[0] for command in save_it]
    for command in save_it:
        subprocess.run(["sh", "-c", command], check=True)
    send(daemon, 2, tmp_path)  # the backup does not have it
    assert 0 == daemon.stop()
    run = ["psql", "--quiet", f"--dbname={url}", "-c"]
    subprocess.run([*run, "CREATE DATABASE restored"], check=True)
    restored, data = url.replace("/postgres?", "/restored?"), tmp_path / "restored"
    for command in restore_it:
        filled_in = command.replace("NEW_URL", f"'{restored}'").replace("NEW_DATA", str(data))
        subprocess.run(["sh", "-c", filled_in], check=True)
    proven = {"IMAGINGSTUDYD_INDEX__URL": restored}
    assert "IMAGINGSTUDYD_INDEX__URL=NEW_URL imagingstudyd verify --repair --data NEW_DATA" == verify_it
    repaired = cli("verify", "--repair", "--data", str(data), **proven)
    assert 0 == repaired.returncode, repaired
    assert 0 == cli("verify", "--data", str(data), "--grace", "0", **proven).returncode
    again = start(data=data, **proven)
    listed = json.loads(cli("studies", "--json", "--data", str(data), **proven).stdout)
    assert [(f"{ROOT}.1", 3)] == [(study["uid"], study["instances"]) for study in listed]
    assert again.resource(f"{ROOT}.1", "r4").exists()
    # A lost object is found.
    next((data / "objects").rglob("*.dcm")).unlink()
    lost = cli("verify", "--data", str(data), "--grace", "0", **proven)
    assert (1, True) == (lost.returncode, "object-missing" in lost.stdout)
    assert 0 == again.stop()
    subprocess.run([*run, "DROP DATABASE restored"], check=True)


def test_check_tells_of_the_server_and_its_nodes(
    url: str, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    on_server = {"IMAGINGSTUDYD_INDEX__URL": url, "IMAGINGSTUDYD_STORAGE__WATERMARK": "0"}
    daemon = start(**on_server)
    checked = cli("check", "--data", str(daemon.data), **on_server)
    assert 0 == checked.returncode, checked.stderr
    for said in ("# index: PostgreSQL ", "connections are free", "synchronous_commit = on"):
        assert said in checked.stdout
    assert f":{daemon.data}: served, last heartbeat " in checked.stdout
    assert "fsync = off" in checked.stderr  # as the tests' server is
    listed = json.loads(cli("check", "--json", "--data", str(daemon.data), **on_server).stdout)
    assert 4 == len(listed["index"])
    away = {"IMAGINGSTUDYD_INDEX__URL": "postgresql://u:secret@127.0.0.1:1/d"}
    refused = cli("check", "--data", str(tmp_path / "other"), **away)
    assert (2, True, False) == (
        refused.returncode,
        "fault: index.url: " in refused.stderr,
        "secret" in refused.stderr,
    )
