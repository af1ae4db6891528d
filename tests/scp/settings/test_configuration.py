"""The configuration: where values come from, secrets, what is broken, and what `check` finds."""

# ruff: noqa: E501  a table reads by its rows

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from index import CannotListen, Index
from scp.commands.main import register_commands
from scp.daemon.service import Daemon as Served
from scp.observing.logs import _is_journal
from scp.settings.file import load
from scp.settings.sections import ConfigurationError
from scp.settings.users import Users, hash_passcode
from support.daemon import Daemon, cli
from support.manager import Authority
from support.peer import Parrot

# No other ports than free ones.
FREE = {"IMAGINGSTUDYD_DICOM__PORT": "0", "IMAGINGSTUDYD_HTTP__PORT": "0"}


def inside(*arguments: str) -> Result:
    """Run a command in this process: starting another one takes a second each."""
    return CliRunner().invoke(register_commands(), arguments)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("site"))
    for name, days in (("good", 2), ("other", 2), ("expired", -1)):
        authority.issue(name, days=days)
    authority.issue("locked", password="secret word")  # noqa: S106
    (authority.folder / "text.pem").write_text("no PEM")
    return authority


# The file's text, {site} and {tmp} filled in; and what is said, from its second line's place on.
TLS = '[dicom.tls]\ncertificate = "{site}/good.pem"\nkey = "{site}/good.key"\n'
BROKEN = {
    "no TOML": ("[dicom\n", "{file}: not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 7)"),
    "route to nobody": (
        '[[routes]]\nto = "NOBODY"\n',
        "{file}:2: routes[0].to = 'NOBODY': no entry of [[peers]] has this aet",
    ),
    "unknown section": ("[dicomm]\n", "{file}:1: dicomm: unknown key; allowed are dicom, peers, routes, storage,"),
    "unknown key": ("[dicom]\nprot = 1\n", "{file}:2: dicom.prot: unknown key; allowed are aet, host, port,"),
    "unknown key of TLS": (TLS + "x = 1\n", "{file}:4: dicom.tls.x: unknown key; allowed are certificate,"),
    "wrong type": ('[dicom]\nmax_pdu = "big"\n', "{file}:2: dicom.max_pdu = 'big': Input should be a valid integer"),
    "out of range": ("[dicom]\nmax_pdu = 5\n", "{file}:2: dicom.max_pdu = 5: Input should be greater than or equal to 4096"),
    "AE title": ('[dicom]\naet = "A_TITLE_TOO_LONG_BY_FAR"\n', "{file}:2: dicom.aet = 'A_TITLE_TOO_LONG_BY_FAR': String should match"),
    "blank AE title": ('[dicom]\naet = "  "\n', "{file}:2: dicom.aet = '  ': an AE title has at least one character other than a space"),
    "word": ('[dicom]\nunknown_callers = "some"\n', "{file}:2: dicom.unknown_callers = 'some': Input should be 'store', 'all' or 'reject'"),
    "network": ('[dicom]\nnetworks = ["10.0.0.1/8"]\n', "{file}:2: dicom.networks[0] = '10.0.0.1/8': value is not a valid IPv4 or IPv6 network"),
    "peer without title": ('[[peers]]\nhost = "ct1"\n', "{file}:1: peers[0].aet: is required"),
    "service": ('[[peers]]\naet = "CT1"\nservices = ["print"]\n', "{file}:3: peers[0].services[0] = 'print': Input should be 'echo', 'store',"),
    "users": ('[dicom]\nusers = "/nonexistent/users"\n', "{file}:2: dicom.users = '/nonexistent/users': /nonexistent/users: cannot be read: No such file"),
    "identity without users": ('[dicom]\nuser_identity = "required"\n', "{file}:2: dicom.user_identity = 'required': needs users, the file"),
    "certificate missing": ('[dicom.tls]\nkey = "{site}/good.key"\n', "{file}:1: dicom.tls.certificate: is required"),
    "certificate not there": (
        '[dicom.tls]\ncertificate = "/nonexistent.pem"\nkey = "{site}/good.key"\n',
        "{file}:2: dicom.tls.certificate = '/nonexistent.pem': /nonexistent.pem: cannot be read: No such file or directory",
    ),
    "certificate is none": (
        '[dicom.tls]\ncertificate = "{site}/text.pem"\nkey = "{site}/good.key"\n',
        "{file}:2: dicom.tls.certificate = '{site}/text.pem': holds no certificate in PEM",
    ),
    "certificate expired": (
        '[dicom.tls]\ncertificate = "{site}/expired.pem"\nkey = "{site}/expired.key"\n',
        "{file}:2: dicom.tls.certificate = '{site}/expired.pem': {site}/expired.pem: has expired on ",
    ),
    "key of another": (
        '[dicom.tls]\ncertificate = "{site}/good.pem"\nkey = "{site}/other.key"\n',
        "{file}:3: dicom.tls.key = '{site}/other.key': {site}/other.key: does not belong to the certificate in {site}/good.pem",
    ),
    "key not there": (
        '[dicom.tls]\ncertificate = "{site}/good.pem"\nkey = "/nonexistent.key"\n',
        "{file}:3: dicom.tls.key = '/nonexistent.key': /nonexistent.key: cannot be read: No such file or directory",
    ),
    "key locked": (
        '[dicom.tls]\ncertificate = "{site}/locked.pem"\nkey = "{site}/locked.key"\nkey_password = "guess"\n',
        "{file}:3: dicom.tls.key = '{site}/locked.key': {site}/locked.key: holds no private key in PEM that key_password opens",
    ),
    "authorities": (TLS + 'ca = "{site}/text.pem"\n', "{file}:4: dicom.tls.ca = '{site}/text.pem': holds no certificate in PEM"),
    "no authorities": (
        TLS + 'client_certificates = "required"\n',
        "{file}:4: dicom.tls.client_certificates = 'required': needs ca, the file of the authorities",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_reported_before_anything_is_changed(
    kind: str, command: str, site: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.daemon.service.Daemon.run", lambda _: pytest.fail("it has started"))
    text, expected = BROKEN[kind]
    file, data = tmp_path / "config.toml", tmp_path / "data"
    file.write_text(text.replace("{site}", str(site.folder)))
    done = inside(command, "--config", str(file), "--data", str(data))
    expected = expected.replace("{file}", str(file)).replace("{site}", str(site.folder))
    assert (2, "") == (done.exit_code, done.stdout), done.stderr
    assert [True] == [line.startswith(expected) for line in done.stderr.splitlines()], done.stderr
    assert not data.exists()


# Each value is possible by its type, and wrong all the same: the file's text, and what is said of it.
WRONG = {
    "peer twice": ('[[peers]]\naet = "CT1"\n[[peers]]\naet = "CT1 "\n', "{file}:4: peers[1].aet = 'CT1': is peers[0].aet too"),
    "blank peer": ('[[peers]]\naet = " "\n', "{file}:2: peers[0].aet = ' ': an AE title has at least one"),
    "peer's port": ('[[peers]]\naet = "CT1"\nport = 0\n', "{file}:3: peers[0].port = 0: Input should be greater"),
    "peer's host": ('[[peers]]\naet = "CT1"\nhost = "a..b"\n', "{file}:3: peers[0].host = 'a..b': is not a host name or address"),
    "service twice": ('[[peers]]\naet = "CT1"\nservices = ["echo", "echo"]\n', "{file}:3: peers[0].services = ['echo', 'echo']: echo is given twice"),
    "zone": ('[fhir]\ntimezone = "Europe/Nowhere"\n', "{file}:2: fhir.timezone = 'Europe/Nowhere': is neither an offset"),
    "offset": ('[fhir]\ntimezone = "+25:00"\n', "{file}:2: fhir.timezone = '+25:00': is neither an offset"),
    "no address": ('[fhir]\nbase_url = "pacs"\n', "{file}:2: fhir.base_url = 'pacs': is no http or https address"),
    "address of nobody": ('[fhir]\nbase_url = "http:///x"\n', "{file}:2: fhir.base_url = 'http:///x': is no http or https address"),
    "address with port": ('[fhir]\nbase_url = "http://h:99999/"\n', "{file}:2: fhir.base_url = 'http://h:99999/': is no http"),
    "address with query": ('[fhir]\nbase_url = "http://h/?a=b"\n', "{file}:2: fhir.base_url = 'http://h/?a=b': is no base"),
    "address with user": ('[fhir]\nbase_url = "http://u:TOPSECRET@h/"\n', "{file}:2: fhir.base_url = 'http://u:…@h/': has a user name"),
    "system": ('[fhir]\npatient_system = "ours"\n', "{file}:2: fhir.patient_system = 'ours': is no URI"),
    "admission system": ('[fhir]\nadmission_system = "ours"\n', "{file}:2: fhir.admission_system = 'ours': is no URI"),
    "system of a table": ('[fhir]\nissuer_systems = {A = "x y"}\n', "{file}:2: fhir.issuer_systems = {'A': 'x y'}: A: 'x y' is no URI"),
    "version twice": ('[fhir]\nversions = ["r4", "r4"]\n', "{file}:2: fhir.versions = ['r4', 'r4']: r4 is given twice"),
    "empty host": ('[dicom]\nhost = ""\n', "{file}:2: dicom.host = '': is not a host name or address"),
    "syntax": ('[dicom]\ntransfer_syntaxes = ["fast"]\n', "{file}:2: dicom.transfer_syntaxes[0] = 'fast': is neither the UID of a transfer syntax nor one of explicit"),
    "UID of another thing": ('[dicom]\ntransfer_syntaxes = ["1.2.840.10008.1.1"]\n', "{file}:2: dicom.transfer_syntaxes[0] = '1.2.840.10008.1.1': is neither the UID of a transfer syntax"),
    "title twice": ('[dicom]\ncalled_aets = ["A", "A"]\n', "{file}:2: dicom.called_aets = ['A', 'A']: A is given twice"),
    "other database": ('[index]\nurl = "mysql://u:TOPSECRET@h/x"\n', "{file}:2: index.url: allowed are sqlite:"),
    "database in memory": ('[index]\nurl = "sqlite:///:memory:"\n', "{file}:2: index.url: names no file"),
    "database URL": ('[index]\nurl = "postgresql://u:TOPSECRET@h:x/y"\n', "{file}:2: index.url: is not a database URL"),
    "no database": ('[index]\nurl = ""\n', "{file}:2: index.url: allowed are sqlite:"),
    "section as a text": ('index = "postgresql://u:TOPSECRET@h/x"\n', "{file}:1: index: Input should be a valid dictionary"),
    "section as a list": ('[[index]]\nurl = "TOPSECRET"\n', "{file}: index: Input should be a valid dictionary"),
    "not a number": ("[publish]\ninterval = nan\n", "{file}:2: publish.interval = nan: Input should be a finite number"),
    "infinite": ("[publish]\nbackoff = inf\n", "{file}:2: publish.backoff = inf: Input should be a finite number"),
    "days of nothing": ("[retention]\ndays = nan\n", "{file}:2: retention.days = nan: Input should be a finite number"),
    "beyond all dates": ("[worklist]\nexpire_days = 99999999\n", "{file}:2: worklist.expire_days = 99999999: Input should be less"),
    "no networks": ("[worklist]\nhl7_networks = []\n", "{file}:2: worklist.hl7_networks = []: Tuple should have at least 1 item"),
    "rule twice": ('[worklist]\nmatch = ["accession", "accession"]\n', "{file}:2: worklist.match = ['accession', 'accession']: accession is given twice"),
    "upstream nobody": ('[worklist.upstream]\npeer = "RIS"\n', "{file}:2: worklist.upstream.peer = 'RIS': no entry of [[peers]] has this aet"),
    "upstream nowhere": ('[[peers]]\naet = "RIS"\n[worklist.upstream]\npeer = "RIS"\n', "{file}:4: worklist.upstream.peer = 'RIS': its entry of [[peers]] needs"),
    "upstream key": ('[[peers]]\naet = "R"\nhost = "h"\nport = 1\n[worklist.upstream]\npeer = "R"\nquery = {Rows = "1"}\n', "{file}:7: worklist.upstream.query = {'Rows': '1'}: Rows is no key"),
    "HL7 sender twice": ('[[worklist.hl7_senders]]\nfacility = "A"\n[[worklist.hl7_senders]]\nfacility = "A"\n', "{file}:3: worklist.hl7_senders[1].application = '': application and facility are those"),
    "empty path": ('[storage]\npath = ""\n', "{file}:2: storage.path = '': is empty"),
    "control character": ('[worklist]\nlocal_authority = "A\\u0000"\n', "{file}:2: worklist.local_authority = 'A\\x00': has a control character"),
    "brackets without end": ("x = " + "[" * 3000 + "]" * 3000 + "\n", "{file}: not valid TOML: maximum recursion depth exceeded"),
    "number without end": ("x = " + "9" * 5000 + "\n", "{file}: not valid TOML: Exceeds the limit"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_value_is_reported_with_key_and_line(kind: str, tmp_path: Path) -> None:
    text, expected = WRONG[kind]
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load(file)
    assert [True] == [
        fault.startswith(expected.replace("{file}", str(file))) for fault in raised.value.faults
    ], raised.value
    assert "TOPSECRET" not in str(raised.value)


def test_what_contradicts_is_refused_by_every_command(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[[peers]]\naet = "CT1"\n[[peers]]\naet = "CT1"\n')
    for command in (["check"], ["serve", "--no-http", "--port", "0"], ["studies"]):
        done = cli(*command, "--config", str(file), "--data", str(tmp_path / "data"))
        assert 2 == done.returncode
        assert (
            f"{file}:4: peers[1].aet = 'CT1': is peers[0].aet too; one entry may have several networks\n"
            == done.stderr
        )


def test_a_variable_of_no_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not so what Kubernetes names after a service of our name: IMAGINGSTUDYD_PORT=tcp://10.0.0.1:104."""
    monkeypatch.setenv("IMAGINGSTUDYD_PORT", "tcp://10.0.0.1:104")
    load()
    monkeypatch.setenv("IMAGINGSTUDYD_DICOMM__AET", "X")
    with pytest.raises(
        ConfigurationError,
        match=r"^environment IMAGINGSTUDYD_DICOMM__AET: unknown section; allowed are dicom, peers",
    ):
        load()


def test_what_is_long_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[log]\nlevel = "{"x" * 100_000}"\n')
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "config.toml")
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "999.1.1.1", "--no-http"], ["--host: dicom.host = 999.1.1.1, dicom.port = 0: Name or service not known"]),
        (["--host", "192.0.2.1", "--no-http"], ["--host: dicom.host = 192.0.2.1, dicom.port = 0: Cannot assign requested address"]),
        (["--http-host", "192.0.2.1"], ["--http-host: http.host = '192.0.2.1': reaches beyond this machine: set http.tokens, [http.proxy], or [http.tls] client_certificates = \"required\"; or http.trust_network = true: whoever reaches it may read patients"]),
        (["--port", "{taken}", "--http-port", "{taken}"], [
            "--port: dicom.host = 127.0.0.1, dicom.port = {taken}: Address already in use",
            "--http-port: http.host = 127.0.0.1, http.port = {taken}: Address already in use",
            "--http-port: http.port = {taken}: is dicom.port too",
        ]),
        (["--port", "{free}", "--http-port", "{free}"], ["--http-port: http.port = {free}: is dicom.port too"]),
        (["--host", "::", "--port", "{free}", "--http-port", "{free}"], ["--http-port: http.port = {free}: is dicom.port too"]),
        (["--data", "{file}"], ["--data: storage.path: {file}: the data directory is a file"]),
        (["--data", "{file}/x"], ["--data: storage.path: {file}/x: no such data directory, and it cannot be made: {file} is a file"]),
    ],
)  # fmt: skip
def test_what_keeps_it_from_starting_is_of_the_configuration(
    flags: list[str], said: list[str], tmp_path: Path
) -> None:
    """systemd does not start it again for ever: status 2, before anything is touched."""
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        names = {"taken": str(taken.getsockname()[1]), "free": str(other.getsockname()[1])}
        names["file"] = str(tmp_path / "file")
        other.close()
        usual = ["--data", str(tmp_path / "data"), "--host", "127.0.0.1", "--port", "0", "--http-port", "0"]
        served = cli("serve", *usual, *(flag.format_map(names) for flag in flags))
    assert 2 == served.returncode
    assert [line.format_map(names) for line in said] == served.stderr.splitlines()
    assert not (tmp_path / "data").exists()


def test_hl7_has_an_address_as_well(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(f"[dicom]\nport = {port}\n[worklist]\nhl7_port = {port}\n")
        served = cli("serve", "--config", str(file), "--data", str(tmp_path / "data"), "--no-http")
        checked = cli("check", "--config", str(file), "--data", str(tmp_path / "data"))
    assert (2, 2) == (served.returncode, checked.returncode)
    taken_twice = f"worklist.hl7_port = {port}: is dicom.port too"
    assert f"{file}:4: {taken_twice}" == served.stderr.splitlines()[-1]
    assert f"fault: {taken_twice}" in checked.stderr.splitlines()


def test_a_port_that_is_taken_after_it_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three listeners names its key; what was open by then is closed again."""
    monkeypatch.setattr("scp.daemon.checks.start_faults", lambda *_: [])
    for section, text in (
        ("dicom.", "[dicom]\nport"),
        ("http.", "[http]\nport"),
        ("worklist.hl7_", "[worklist]\nhl7_port"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            file, port = tmp_path / "config.toml", taken.getsockname()[1]
            free = {"dicom.": "[http]\nport = 0\n", "http.": "[dicom]\nport = 0\n"}
            file.write_text(f"{text} = {port}\n" + free.get(section, "[dicom]\nport = 0\n[http]\nport = 0\n"))
            with pytest.raises(
                CannotListen, match=f"{section}port = {port}: Address already in use"
            ) as raised:
                Served(load(file, {"storage": {"path": tmp_path / "data"}})).run()
        assert f"{section}port" == raised.value.key
        Index(tmp_path / "data").close()


def test_check_finds_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[worklist]\nfolder = "{tmp_path}/orders"\n[index]\nurl = "sqlite:///{tmp_path}/nowhere/index.sqlite"\n'
    )
    checked = cli("check", "--config", str(file), "--data", str(tmp_path / "data"), **FREE)
    assert 2 == checked.returncode
    assert {
        f"fault: worklist.folder = {tmp_path}/orders: no such folder",
        f"fault: index.url: {tmp_path}/nowhere: no such folder",
    } == {line for line in checked.stderr.splitlines() if line.startswith("fault")}


def test_everything_at_once(site: Authority, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[dicom]\nport = -1\n[dicom.tls]\ncertificate = "{site.folder}/good.pem"\nkey = "{site.folder}/other.key"\n[log]\nlevel = "loud"\n'
    )
    done = cli(
        "serve",
        "--config",
        str(file),
        "--data",
        str(tmp_path / "data"),
        "--http-port",
        "77777",
        IMAGINGSTUDYD_DICOM__AET="",
    )
    places = {line.split(": ")[0] for line in done.stderr.splitlines()}
    assert 2 == done.returncode
    assert {
        "environment IMAGINGSTUDYD_DICOM__AET",
        f"{file}:2",
        f"{file}:5",
        "--http-port",
        f"{file}:7",
    } == places


def test_reading_commands_need_no_key(tmp_path: Path) -> None:
    """Who only reads the index need not be allowed to read the daemon's key."""
    file = tmp_path / "config.toml"
    file.write_text('[dicom.tls]\ncertificate = "/nonexistent.pem"\nkey = "/nonexistent.key"\n')
    (tmp_path / "data").mkdir()
    assert 0 == cli("studies", "--config", str(file), "--data", str(tmp_path / "data")).returncode


def test_where_each_value_comes_from(tmp_path: Path) -> None:
    file, credentials = tmp_path / "config.toml", tmp_path / "credentials"
    file.write_text(
        '[dicom]\naet = "FILE"\nhost = "127.0.0.1"\n\n[[peers]]\naet = "CT1"\n[[peers]]\naet = "CT2"\n'
    )
    credentials.mkdir()
    (credentials / "imagingstudyd_index__url").write_text("sqlite:///secret/place\n")
    checked = cli(
        "check", "--json", "--config", str(file), "--data", str(tmp_path / "data"),
        CREDENTIALS_DIRECTORY=str(credentials), IMAGINGSTUDYD_DICOM__HOST="127.0.0.2", **FREE,
    )  # fmt: skip
    assert 0 == checked.returncode, checked.stderr
    sources = json.loads(checked.stdout)["sources"]
    expected = {
        "dicom.aet": f"{file}:2",
        "dicom.host": "environment IMAGINGSTUDYD_DICOM__HOST",
        "dicom.port": "environment IMAGINGSTUDYD_DICOM__PORT",
        "dicom.max_pdu": "default",
        "peers[1].aet": f"{file}:8",
        "storage.path": "--data",
        "index.url": f"credential {credentials}/imagingstudyd_index__url",
    }
    assert expected == {key: sources[key] for key in expected}
    assert "secret/place" not in checked.stdout + checked.stderr


def test_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[dicom]\naet = "FILE"\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found = [load(file).dicom.aet]
    (tmp_path / "IMAGINGSTUDYD_DICOM__AET").write_text("CREDENTIAL")
    found.append(load(file).dicom.aet)
    monkeypatch.setenv("IMAGINGSTUDYD_DICOM__AET", "ENVIRONMENT")
    found.append(load(file).dicom.aet)
    found.append(load(file, {"dicom": {"aet": "FLAG"}}).dicom.aet)
    assert ["FILE", "CREDENTIAL", "ENVIRONMENT", "FLAG"] == found


def test_a_wrong_secret_is_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[index]\nurl = 4711\n")
    done = cli("check", "--config", str(file))
    assert (2, f"{file}:2: index.url: Input should be a valid string\n") == (done.returncode, done.stderr)


def test_check_finds_ports_paths_and_peers_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "config.toml"
        file.write_text(
            f'[dicom]\nhost = "127.0.0.1"\nport = {port}\n[http]\nport = {port}\n'
            '[[peers]]\naet = "CT1"\nhost = "no.such.host.invalid"\n'
        )
        done = cli("check", "--config", str(file), "--data", str(tmp_path / "file"))
    assert 2 == done.returncode
    assert [
        f"fault: {tmp_path}/file: the data directory is a file",
        f"fault: dicom.host = 127.0.0.1, dicom.port = {port}: Address already in use",
        f"fault: http.host = 127.0.0.1, http.port = {port}: Address already in use",
        f"fault: http.port = {port}: is dicom.port too",
        "fault: peers[0].host = no.such.host.invalid: no address is known for CT1",
    ] == [line for line in done.stderr.splitlines() if line.startswith("fault")]  # fmt: skip


def test_check_beside_its_own_daemon(shared_daemon: Daemon) -> None:
    port = str(shared_daemon.port)
    checked = cli("check", "--data", str(shared_daemon.data), IMAGINGSTUDYD_DICOM__PORT=port)
    assert 0 == checked.returncode, checked.stderr


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "dicom.unknown_callers = store: callers not named in [[peers]] may echo and store"),
        ('[dicom]\nunknown_callers = "all"\n', "callers not named in [[peers]] may use every service"),
        ("", "dicom.host = 0.0.0.0: DICOM without TLS is open to every caller of port 0"),
        ("", "dicom.called_aets is empty"),
        (
            '[[peers]]\naet = "CT1"\n',
            "peers[0].aet = CT1: a caller from any address may use this title",
        ),
        (
            '[[peers]]\naet = "CT1"\n',
            "peers[0].services: CT1 may use every service, and so retrieve every study",
        ),
        (TLS, "dicom.tls.client_certificates = none: callers need no certificate of their own"),
        (TLS, "expires on "),
        ('[http]\nhost = "0.0.0.0"\ntrust_network = true\n', "http.host = 0.0.0.0: HTTP without TLS: tokens"),
        ('[http]\nhost = "0.0.0.0"\ntrust_network = true\n', "whoever reaches port 0 may read patients"),
        ('[http]\nlocal = "all"\n', "whoever works on this machine may delete and match"),
        ('[storage]\ndurability = "process-crash"\n', "may be lost in a power cut"),
        ("[storage]\nwatermark = 1152921504606846976\n", "every C-STORE is answered A700"),
        ("[limits]\nassociations = 1000000\n", "limits.associations = 1000000: "),
        ('[dicom]\nusers = "{tmp}/users"\n', "dicom.users: passcodes travel readable"),
    ],
)
def test_check_warns_of_what_is_open(
    text: str, warning: str, site: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users").write_text("anna:\n")
    file = tmp_path / "config.toml"
    file.write_text(text.replace("{site}", str(site.folder)).replace("{tmp}", str(tmp_path)))
    for name, value in FREE.items():
        monkeypatch.setenv(name, value)
    checked = inside("check", "--config", str(file), "--data", str(tmp_path))
    assert 0 == checked.exit_code, checked.stderr
    assert [True] == [
        True for line in checked.stderr.splitlines() if line.startswith("warning: ") and warning in line
    ]


def test_a_read_only_data_directory_is_reported_at_start(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk / "data")], check=True)
    try:
        served = cli("serve", "--data", str(disk / "data"), "--port", "0", "--no-http")
        inside = cli("serve", "--data", str(disk / "data" / "new"), "--port", "0", "--no-http")
    finally:
        subprocess.run(["umount", str(disk / "data")], check=True)
    assert (1, f"imagingstudyd: {disk}/data: its file system is read-only\n") == (
        served.returncode,
        served.stderr,
    )
    missing = f"{disk}/data/new: no such data directory, and it cannot be made: {disk}/data: its file system is read-only"
    assert (1, f"imagingstudyd: {missing}\n") == (inside.returncode, inside.stderr)


@pytest.mark.parametrize("below", ["", "/data"])
def test_a_data_directory_on_a_disk_that_is_not_mounted_is_named(tmp_path: Path, below: str) -> None:
    """Status 1: systemd starts it again, and the disk may be there then."""
    link, disk = tmp_path / "link", tmp_path / "disk"
    link.symlink_to(disk)
    said = f"{link}: is a link to {disk}, which is not there"
    said = f"{link}{below}: no such data directory, and it cannot be made: {said}" if below else said
    served = cli("serve", "--data", f"{link}{below}", "--port", "0", "--no-http")
    assert (1, f"imagingstudyd: {said}\n") == (served.returncode, served.stderr)
    checked = cli("check", "--data", f"{link}{below}")
    assert 2 == checked.returncode
    assert f"fault: {said}" in checked.stderr.splitlines()


def test_a_database_of_a_newer_version_is_refused(daemon: Daemon) -> None:
    daemon.stop()
    database = sqlite3.connect(daemon.data / "index.sqlite")
    database.execute("INSERT INTO schema_version (version) VALUES (9999)")
    database.commit()
    database.close()
    served = cli("serve", "--data", str(daemon.data), "--port", "0", "--no-http")
    assert 1 == served.returncode
    assert "schema version 9999 is newer than this program's" in served.stderr
    assert 1 == len(served.stderr.splitlines())


def test_a_port_in_use_is_reported_at_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = cli(
            "serve", "--data", str(tmp_path / "data"), "--host", "127.0.0.1", "--port", str(port), "--no-http"
        )
    assert 2 == served.returncode  # RestartPreventExitStatus= of the unit: nothing gets better by itself
    said = f"--port: dicom.host = 127.0.0.1, dicom.port = {port}: Address already in use\n"
    assert said == served.stderr
    assert not (tmp_path / "data").exists()


def test_reload_takes_peers_limits_and_level_and_drops_no_association(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[dicom]\nunknown_callers = "reject"\n[[peers]]\naet = "SCU"\n')
    daemon = start("--config", str(file))
    with Parrot(daemon.port) as before, Parrot(daemon.port) as other:
        assert 0x02 == before.associate()[0]
        assert 0x03 == other.associate(calling="CT2")[0]
        file.write_text(
            '[dicom]\nunknown_callers = "reject"\nport = 11112\n[[peers]]\naet = "CT2"\n[log]\nlevel = "debug"\n[publish]\ninterval = 7\n'
        )
        daemon.process.send_signal(signal.SIGHUP)
        reloaded = daemon.wait_for(lambda event: event.get("event") == "reloaded")
        assert (1, ["publish.interval"]) == (reloaded["peers"], reloaded["needs_restart"])
        with Parrot(daemon.port) as after, Parrot(daemon.port) as late:
            assert 0x02 == after.associate(calling="CT2")[0]
            assert (0x03, b"\0\x01\x01\x03") == late.associate(calling="SCU")
        daemon.wait_for(lambda event: event.get("level") == "debug")
        file.write_text('[dicom]\nunknown_callers = "none"\n[[peers]]\naet = ""\n')
        daemon.process.send_signal(signal.SIGHUP)
        refused = daemon.wait_for(lambda event: event.get("event") == "reload_refused")
        assert [f"{file}:2: dicom.unknown_callers", f"{file}:4: peers[0].aet"] == [
            fault.split(" = ")[0] for fault in refused["faults"]
        ]
        with Parrot(daemon.port) as after:
            assert 0x02 == after.associate(calling="CT2")[0]
        assert 0x06 == before.release()


def test_priorities_in_the_journal(tmp_path: Path) -> None:
    """Off elsewhere: the daemon of every other test writes plain JSON lines."""
    path = tmp_path / "journal"
    with path.open("w") as journal:
        status = os.fstat(journal.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        script = 'from scp.observing import logs; from scp.settings.sections import LogSettings; import structlog; logs.configure(LogSettings(level="debug"))\n'
        script += "for level in ('debug', 'info', 'warning', 'error', 'critical'): getattr(structlog.get_logger(), level)(level)"
        env = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", script], stderr=journal, env=env, check=True)
    lines = path.read_text().splitlines()
    assert ["<7>", "<6>", "<4>", "<3>", "<2>"] == [line[:3] for line in lines]
    assert ["debug", "info", "warning", "error", "critical"] == [
        json.loads(line[3:])["event"] for line in lines
    ]


def test_another_stream_is_not_the_journal() -> None:
    assert not _is_journal(2, "8:1")
    assert not _is_journal(-1, "8:1")


def test_the_file_of_users(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# comment\n\nanna:{hash_passcode('open sesame')}\nben:\n")
    users = Users(file)
    assert users.verify(2, b"anna", b"open sesame")
    assert not users.verify(2, b"anna", b"wrong")
    assert not users.verify(1, b"anna", b"")
    assert users.verify(1, b"ben", b"")
    assert not users.verify(2, b"ben", b"anything")
    assert not users.verify(1, b"carl", b"")
    assert not users.verify(5, b"anna", b"")


def test_password_prints_a_line_for_it(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "scp", "password", "anna"],
        input="open sesame\n",
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "users").write_text(made.stdout)
    assert Users(tmp_path / "users").verify(2, b"anna", b"open sesame")
    assert "sesame" not in made.stdout


@pytest.mark.parametrize(
    "line",
    [
        "anna",
        "anna:plain",
        "anna:scrypt$16384$8$1$AAAA",
        "anna:scrypt$3$8$1$AAAA$AAAA",
        ":x",
        "anna:scrypt$999999999999$8$1$AAAA$AAAA",
    ],
)
def test_a_broken_file_of_users_names_the_line_and_not_what_is_in_it(line: str, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match=f"^{tmp_path}/users:2: ") as raised:
        Users(tmp_path / "users")
    assert "plain" not in str(raised.value)
