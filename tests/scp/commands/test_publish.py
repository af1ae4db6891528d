"""`publish`, and what check, health and metrics tell of targets."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from scp.commands.main import register_commands
from scp.daemon.health import health
from scp.observing.metrics import Metrics
from scp.settings.file import load
from scp.settings.sections import ConfigurationError
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Request, Response, outcome
from support.filling import keep
from support.targets import Site, target


@pytest.fixture
def server() -> Iterator[FhirServer]:
    made = FhirServer()
    yield made
    made.close()


@pytest.fixture
def config(tmp_path: Path, server: FhirServer) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'[[publish.targets]]\nname = "ehr"\nurl = "{server.url}"\n')
    return path


def refuse_first(request: Request) -> Response | None:
    is_first = f"{ROOT}.1".encode() + b'"' in request.body
    return Response(422, outcome("Head: wrong", "business-rule")) if is_first else None


def test_an_operator_sees_retries_and_drops_dead_letters(
    tmp_path: Path, server: FhirServer, config: Path
) -> None:
    server.script = refuse_first
    site = Site(tmp_path / "data", target(server))
    for study in (1, 2):
        keep(site.index, instance(study))
    assert site.is_published()
    site.close()

    def run(*arguments: str) -> tuple[int, str]:
        command = ["publish", *arguments, "--data", str(site.index.data), "--config", str(config)]
        done = CliRunner().invoke(register_commands(), command)
        return done.exit_code, done.stdout

    (listed,) = json.loads(run("list", "--json")[1])
    assert ("ehr", "ImagingStudy", f"{ROOT}.1", "dead", 1, ["Head: wrong"]) == tuple(
        listed[key] for key in ("target", "type", "id", "state", "attempts", "issues")
    )
    assert "422 Unprocessable Entity: the server refuses what it says" == listed["error"]
    assert "Head: wrong" in run("list")[1]
    (status,) = json.loads(run("status", "--json")[1])
    assert ("ehr", 0, 0, 1, 0, False) == tuple(
        status[key] for key in ("target", "waiting", "held", "dead", "behind", "filling")
    )
    assert 2 == run("retry")[0]
    assert (1, '{"retried":0}\n') == run("retry", "--target", "other", "--json")
    assert (0, '{"retried":1}\n') == run("retry", f"{ROOT}.1", "--json")
    assert 1 == run("drop", "--all")[0]
    assert (0, '{"dropped":1}\n') == run("drop", "--all", "--waiting", "--json")


def test_a_round_trip_is_said_in_words(config: Path, server: FhirServer) -> None:
    def run(name: str = "ehr") -> tuple[int, str]:
        done = CliRunner().invoke(register_commands(), ["publish", "test", name, "--config", str(config)])
        return done.exit_code, done.stdout

    status, said = run()
    assert 0 == status
    assert "ehr: speaks FHIR 4.0.1 (Scripted 1)\nehr: takes transactions\n" in said
    assert "ehr: ImagingStudy can be searched: we are allowed to read\n" in said
    assert [] == server.writes
    assert 2 == run("other")[0]
    server.script = lambda _: Response(401, outcome("who are you?"))
    status, said = run()
    assert 1 == status
    assert "the server does not know us" in said
    server.version, server.script = "r5", lambda _: None
    assert "the server speaks FHIR 5.0.0, not r4: check url and version" in run()[1]


def test_verify_check_and_export_by_the_command_line(
    tmp_path: Path, server: FhirServer, config: Path
) -> None:
    site = Site(tmp_path / "data", target(server))
    keep(site.index, instance())
    assert site.is_published()
    site.close()

    def run(*arguments: str) -> tuple[int, str]:
        command = [*arguments, "--data", str(site.index.data), "--config", str(config)]
        done = CliRunner().invoke(register_commands(), command)
        return done.exit_code, done.stdout

    assert 0 == run("publish", "verify", "ehr")[0]
    assert 2 == run("publish", "verify", "other")[0]
    server.resources.pop(f"ImagingStudy/{ROOT}.1")
    status, said = run("publish", "verify", "ehr", "--dry-run", "--json")
    found = {"type": "ImagingStudy", "id": f"{ROOT}.1", "what": "is missing", "mended": False}
    assert (1, found) == (status, json.loads(said))
    assert (0, f"ImagingStudy/{ROOT}.1 is missing: sent again\n") == run("publish", "verify", "ehr")
    assert "publish target ehr" in run("check", "--targets")[1]
    exported = {"exported": {"Patient": 1, "ImagingStudy": 1, "Endpoint": 1}, "deleted": 0}
    status, said = run("export", str(tmp_path / "out"), "--json")
    assert (0, exported) == (status, json.loads(said))
    assert 2 == run("export", str(tmp_path / "out"), "--since", "yesterday")[0]
    assert 1 == run("export", "/dev/null")[0]
    config.write_text(f'{config.read_text()}[fhir]\nversions = ["r4"]\n')
    assert 2 == run("export", str(tmp_path / "out"), "--fhir", "dstu2")[0]
    assert 0 == run("publish", "drop", "--all", "--waiting")[0]
    server.close()
    assert 1 == run("publish", "verify", "ehr")[0]
    assert 2 == run("check", "--targets")[0]


def test_health_and_metrics_tell_of_a_target_that_is_down(tmp_path: Path, server: FhirServer) -> None:
    server.script = lambda _: Response(503)
    metrics = Metrics()
    site = Site(tmp_path / "data", target(server), observer=metrics)
    metrics.add_targets(site.index.targets)
    keep(site.index, instance())
    assert eventually(lambda: bool(site.index.targets.failing()))
    listener = SimpleNamespace(makes_progress=lambda _: True)
    found = health(site.index, listener)
    assert ("degraded", "ehr: 503 Service Unavailable: the server is not available") == (
        found.status,
        found.checks["publishing"],
    )
    text = metrics.text().decode()
    assert 'imagingstudyd_publish_target_up{target="ehr"} 0.0' in text
    assert 'imagingstudyd_publish_outbox_studies{state="waiting",target="ehr"} 1.0' in text
    site.close()
    server.script = lambda _: None
    site = Site(tmp_path / "data", target(server), observer=metrics)
    keep(site.index, instance(2))
    assert site.is_published()
    text = metrics.text().decode()
    assert 'imagingstudyd_publish_requests_total{outcome="done",target="ehr"} 2.0' in text
    assert 'imagingstudyd_publish_lag_seconds_count{target="ehr"} 1.0' in text
    site.close()


def test_targets_that_may_be_one_server_are_named(tmp_path: Path, server: FhirServer) -> None:
    path = tmp_path / "config.toml"
    urls = {
        "ehr": server.url,
        "second": server.url.replace("127.0.0.1", "localhost"),
        "hook": "http://x.invalid",
    }
    targets = [f'[[publish.targets]]\nname = "{name}"\nurl = "{url}"\n' for name, url in urls.items()]
    path.write_text("".join(targets) + 'method = "webhook"\n')
    command = ["check", "--targets", "--config", str(path), "--data", str(tmp_path / "data")]
    said = CliRunner().invoke(register_commands(), command).stdout
    assert "second may be the server of ehr too: 127.0.0.1 has the name localhost" in said
    command = ["publish", "verify", "hook", "--config", str(path), "--data", str(tmp_path)]
    assert 2 == CliRunner().invoke(register_commands(), command).exit_code


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('[[publish.targets]]\nname = "ehr"\nurl = "http://other"\n', "is publish.targets[0].name too"),
        (
            '[[publish.targets]]\nname = "b"\nurl = "http://Server.example:80/fhir/"\n',
            "is the server of publish.targets[0] too",
        ),
        (
            '[[publish.targets]]\nname = "b"\nurl = "http://b"\n[fhir]\nversions = ["r5"]\n',
            "is not among fhir.versions: r5",
        ),
        ('authorization = "basic"\nclient = "us"\n', "authorization = basic needs secret"),
        ('secret = "s"\nsecret_file = "f"\n', "exclude each other"),
        ('look_up = ["Practitioner"]\nversion = "dstu2"\n', "are not known in dstu2"),
        ('proxy = "server"\n', "is no http or https address"),
        ('proxy = "http://us:geheim@proxy"\n', "has a user name, which belongs into proxy_secret_file"),
        ('token_url = "http://us:geheim@token"\n', "has a user name, which belongs into client and secret"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, more: str, why: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[[publish.targets]]\nname = "ehr"\nurl = "http://server.example/fhir"\n{more}')
    with pytest.raises(ConfigurationError) as error:
        load(path)
    assert any("publish.targets" in fault and why in fault for fault in error.value.faults)
    assert "geheim" not in str(error.value)


def test_a_secret_is_not_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[[publish.targets]]\nname = "ehr"\nurl = "http://server.example/fhir"\n'
        'authorization = "bearer"\nsecret = "geheim"\ntimeout = "x"\ncolour = 1\nsecret_file = "f"\n'
    )
    with pytest.raises(ConfigurationError) as error:
        load(path)
    assert "geheim" not in str(error.value)
