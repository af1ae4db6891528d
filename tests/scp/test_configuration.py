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
from reception import Parrot
from typer.testing import CliRunner, Result

import scp.commands.service  # noqa: F401  registers its commands
from scp.cli import app
from scp.configfile import load
from scp.identity import Users, hashed
from scp.logs import _is_journal
from support.daemon import Daemon, cli
from support.manager import Authority

# No other ports than free ones.
FREE = {"IMAGINGSTUDYD_DICOM__PORT": "0", "IMAGINGSTUDYD_HTTP__PORT": "0"}


def inside(*arguments: str) -> Result:
    """Run a command in this process: starting another one takes a second each."""
    return CliRunner().invoke(app, arguments)


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
    "unknown section": ("[dicomm]\n", "{file}:1: dicomm: unknown key; allowed are dicom, peers, storage,"),
    "unknown key": ("[dicom]\nprot = 1\n", "{file}:2: dicom.prot: unknown key; allowed are aet, host, port,"),
    "unknown key of TLS": (TLS + "x = 1\n", "{file}:4: dicom.tls.x: unknown key; allowed are certificate,"),
    "wrong type": ('[dicom]\nmax_pdu = "big"\n', "{file}:2: dicom.max_pdu = 'big': Input should be a valid integer"),
    "out of range": ("[dicom]\nmax_pdu = 5\n", "{file}:2: dicom.max_pdu = 5: Input should be greater than or equal to 4096"),
    "AE title": ('[dicom]\naet = "A_TITLE_TOO_LONG_BY_FAR"\n', "{file}:2: dicom.aet = 'A_TITLE_TOO_LONG_BY_FAR': String should match"),
    "blank AE title": ('[dicom]\naet = "  "\n', "{file}:2: dicom.aet = '  ': an AE title has at least one character that is no space"),
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
def test_what_is_broken_is_said_before_anything_is_touched(
    kind: str, command: str, site: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.daemon.Daemon.run", lambda _: pytest.fail("it has started"))
    text, expected = BROKEN[kind]
    file, data = tmp_path / "config.toml", tmp_path / "data"
    file.write_text(text.replace("{site}", str(site.folder)))
    done = inside(command, "--config", str(file), "--data", str(data))
    expected = expected.replace("{file}", str(file)).replace("{site}", str(site.folder))
    assert (2, "") == (done.exit_code, done.stdout), done.stderr
    assert [True] == [line.startswith(expected) for line in done.stderr.splitlines()], done.stderr
    assert not data.exists()


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


def test_a_secret_is_not_said_even_where_it_is_wrong(tmp_path: Path) -> None:
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


def test_check_beside_its_own_daemon(daemon: Daemon) -> None:
    checked = cli("check", "--data", str(daemon.data), IMAGINGSTUDYD_DICOM__PORT=str(daemon.port))
    assert 0 == checked.returncode, checked.stderr


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "dicom.unknown_callers = store: callers not named in [[peers]] may echo and store"),
        ('[dicom]\nunknown_callers = "all"\n', "callers not named in [[peers]] may use every service"),
        ("", "dicom.host = 0.0.0.0: DICOM without TLS is open to whoever reaches port 0"),
        ("", "dicom.called_aets is empty"),
        (
            '[[peers]]\naet = "CT1"\n',
            "peers[0].aet = CT1: whoever calls so is taken for it, from any address",
        ),
        (TLS, "dicom.tls.client_certificates = none: callers need no certificate of their own"),
        (TLS, "expires on "),
        ('[http]\nhost = "0.0.0.0"\n', "http.host = 0.0.0.0: HTTP without TLS is open"),
        ('[storage]\ndurability = "process-crash"\n', "may be lost in a power cut"),
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


def test_a_read_only_data_directory_is_said_at_start(tmp_path: Path) -> None:
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


def test_a_port_in_use_is_said_at_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = cli(
            "serve", "--data", str(tmp_path / "data"), "--host", "127.0.0.1", "--port", str(port), "--no-http"
        )
    assert 1 == served.returncode
    assert (
        f"imagingstudyd: [Errno 98] Address already in use: '127.0.0.1:{port}'"
        == served.stderr.splitlines()[-1]
    )


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
        script = 'from scp import logs; from scp.config import LogSettings; import structlog; logs.configure(LogSettings(level="debug"))\n'
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
    file.write_text(f"# comment\n\nanna:{hashed('open sesame')}\nben:\n")
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
