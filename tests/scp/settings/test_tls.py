"""DICOM over TLS with DCMTK's clients: certificates, silent clients, reload."""

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scp.settings.certificates import validity
from support.daemon import Daemon, eventually, run
from support.dicom import instance, save
from support.manager import Authority
from support.peer import CT, EXPLICIT, Parrot, associate_rq


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("site"))
    authority.issue("localhost")
    authority.issue("scanner")
    return authority


@pytest.fixture(scope="module")
def unknown_limit(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("strangers"), "Other CA")
    authority.issue("scanner")
    return authority


@pytest.fixture
def secure(start: Callable[..., Daemon], site: Authority) -> Callable[..., tuple[Daemon, int]]:
    """Start a daemon with TLS on a free port; return it and that port."""

    def starter(**tls: str) -> tuple[Daemon, int]:
        settings = {
            "certificate": str(site.folder / "localhost.pem"),
            "key": str(site.folder / "localhost.key"),
            "port": "0",
            **tls,
        }
        variables = {f"IMAGINGSTUDYD_DICOM__TLS__{key.upper()}": value for key, value in settings.items()}
        daemon = start(**variables)
        ready = daemon.named("ready")[0]
        return daemon, ready["tls"][1]

    return starter


def scu(
    tool: str, port: int, authority: Authority, name: str | None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's clients with the certificate of `name`, or with none; it trusts `authority`."""
    shown = (
        ("+tls", str(authority.folder / f"{name}.key"), str(authority.folder / f"{name}.pem"))
        if name
        else ("+tla",)
    )
    return run(
        tool, *shown, "+cf", str(authority.certificate), "-aec", "ANY", "localhost", str(port), *arguments
    )


def test_store_and_echo_over_tls_and_plain_beside(
    secure: Callable[..., tuple[Daemon, int]], site: Authority, tmp_path: Path
) -> None:
    daemon, port = secure()
    path = str(save(instance(), tmp_path / "one.dcm"))
    assert 0 == scu("echoscu", port, site, None).returncode
    assert 0 == scu("storescu", port, site, None, path).returncode
    assert 0 == run("echoscu", daemon.host, str(daemon.port)).returncode
    event = daemon.wait_for(lambda event: event.get("event") == "store")
    assert event["tls"] in ("TLSv1.2", "TLSv1.3")
    # Neither port speaks the other's language.
    assert 0 != run("echoscu", daemon.host, str(port)).returncode
    assert 0 != scu("echoscu", daemon.port, site, None).returncode
    assert 0 == scu("echoscu", port, site, None).returncode


def test_client_certificates(
    secure: Callable[..., tuple[Daemon, int]], site: Authority, unknown_limit: Authority, tmp_path: Path
) -> None:
    daemon, port = secure(client_certificates="required", ca=str(site.certificate))
    path = str(save(instance(), tmp_path / "one.dcm"))
    assert 0 == scu("storescu", port, site, "scanner", path).returncode
    event = daemon.wait_for(lambda event: event.get("event") == "store")
    assert "organizationName=Site, commonName=scanner" == event["tls_subject"]
    assert 0 != scu("echoscu", port, site, None).returncode
    daemon.wait_for(
        lambda event: event.get("event") == "tls_failed" and "certificate" in event["why"].lower()
    )
    wrong = ("+tls", str(unknown_limit.folder / "scanner.key"), str(unknown_limit.folder / "scanner.pem"))
    refused = run("storescu", *wrong, "+cf", str(site.certificate), "localhost", str(port), path)
    assert 0 != refused.returncode
    assert 1 == len(daemon.named("store"))
    assert eventually(lambda: 2 == len(daemon.named("tls_failed")))


def test_a_certificate_that_need_not_be_shown(
    secure: Callable[..., tuple[Daemon, int]], site: Authority, unknown_limit: Authority
) -> None:
    _, port = secure(client_certificates="optional", ca=str(site.certificate))
    assert 0 == scu("echoscu", port, site, None).returncode
    assert 0 == scu("echoscu", port, site, "scanner").returncode
    wrong = ("+tls", str(unknown_limit.folder / "scanner.key"), str(unknown_limit.folder / "scanner.pem"))
    assert 0 != run("echoscu", *wrong, "+cf", str(site.certificate), "localhost", str(port)).returncode


def test_a_client_that_trusts_others_is_not_served(
    secure: Callable[..., tuple[Daemon, int]], unknown_limit: Authority
) -> None:
    daemon, port = secure()
    assert 0 != scu("echoscu", port, unknown_limit, None).returncode
    daemon.wait_for(lambda event: event.get("event") == "tls_failed")


def test_clients_that_stop_in_the_handshake_hold_no_other_up(
    secure: Callable[..., tuple[Daemon, int]], site: Authority
) -> None:
    daemon, port = secure()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    halves = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    for half in halves:
        half.sendall(b"\x16\x03\x01\x02\x00\x01")  # a handshake record that does not go on
    began = time.monotonic()
    assert 0 == scu("echoscu", port, site, None).returncode
    assert 0 == run("echoscu", daemon.host, str(daemon.port)).returncode
    assert time.monotonic() - began < 5
    for one in (*silent, *halves):
        one.close()


def test_a_silent_client_is_hung_up_on(
    secure: Callable[..., tuple[Daemon, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINGSTUDYD_DICOM__TIMEOUTS__REQUEST", "0.5")
    daemon, port = secure()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        assert b"" == silent.recv(1)
    daemon.wait_for(lambda event: event.get("event") == "tls_failed")


def test_stopping_does_not_wait_for_a_handshake(start: Callable[..., Daemon], site: Authority) -> None:
    daemon = start(
        IMAGINGSTUDYD_DICOM__TIMEOUTS__DRAIN="1",
        IMAGINGSTUDYD_DICOM__TLS__CERTIFICATE=str(site.folder / "localhost.pem"),
        IMAGINGSTUDYD_DICOM__TLS__KEY=str(site.folder / "localhost.key"),
        IMAGINGSTUDYD_DICOM__TLS__PORT="0",
    )
    with socket.create_connection(("127.0.0.1", daemon.named("ready")[0]["tls"][1])):
        began = time.monotonic()
        assert 0 == daemon.stop()
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("minimum", "offered", "is_served"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_1, False),
        ("1.2", ssl.TLSVersion.TLSv1_2, True),
        ("1.2", ssl.TLSVersion.TLSv1_3, True),
        ("1.3", ssl.TLSVersion.TLSv1_2, False),
        ("1.3", ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_versions(
    secure: Callable[..., tuple[Daemon, int]],
    site: Authority,
    minimum: str,
    offered: ssl.TLSVersion,
    *,
    is_served: bool,
) -> None:
    _, port = secure(minimum_version=minimum)
    client = ssl.create_default_context(cafile=site.certificate)
    client.check_hostname = False
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = offered
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with client.wrap_socket(plain) as secured:
                secured.sendall(associate_rq([(1, CT, (EXPLICIT,))]))
                answer = secured.recv(1)
        except OSError:
            answer = b""
    assert is_served == (b"\x02" == answer)


@pytest.mark.parametrize(
    "cipher", ["AES128-SHA", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-SHA"]
)
def test_weak_suites_are_refused(secure: Callable[..., tuple[Daemon, int]], cipher: str) -> None:
    """No forward secrecy, or no authenticated encryption (RFC 9325 Section 4.1)."""
    _, port = secure()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        pytest.raises(OSError, match="handshake failure"),
    ):
        client.wrap_socket(plain)


def test_plain_can_be_closed(secure: Callable[..., tuple[Daemon, int]], site: Authority) -> None:
    daemon, port = secure(plain="false")
    assert daemon.port == port
    assert 0 == scu("echoscu", port, site, None).returncode


def test_a_key_with_a_password_from_a_credential(
    secure: Callable[..., tuple[Daemon, int]], site: Authority, tmp_path: Path
) -> None:
    certificate, key = site.issue("locked", password="open sesame")  # noqa: S106
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "imagingstudyd_dicom__tls__key_password").write_text("open sesame\n")
    os.environ["CREDENTIALS_DIRECTORY"] = str(tmp_path / "credentials")
    try:
        daemon, port = secure(certificate=str(certificate), key=str(key))
    finally:
        del os.environ["CREDENTIALS_DIRECTORY"]
    assert 0 == scu("echoscu", port, site, None).returncode
    assert "open sesame" not in "".join(daemon.lines)


def test_reload_takes_new_certificates_and_drops_no_association(
    start: Callable[..., Daemon], site: Authority, unknown_limit: Authority, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"

    def use(authority: Authority, name: str) -> None:
        certificate.write_bytes((authority.folder / f"{name}.pem").read_bytes())
        key.write_bytes((authority.folder / f"{name}.key").read_bytes())

    use(site, "localhost")
    file = tmp_path / "config.toml"
    file.write_text(f'[dicom.tls]\ncertificate = "{certificate}"\nkey = "{key}"\nport = 0\n')
    daemon = start("--config", str(file))
    port = daemon.named("ready")[0]["tls"][1]
    with Parrot(daemon.port) as open_before:
        open_before.associate()
        use(unknown_limit, "scanner")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda event: event.get("event") == "reloaded")
        assert 0 != scu("echoscu", port, site, None).returncode
        assert 0 == scu("echoscu", port, unknown_limit, None).returncode
        key.write_bytes((site.folder / "localhost.key").read_bytes())
        daemon.process.send_signal(signal.SIGHUP)
        refused = daemon.wait_for(lambda event: event.get("event") == "reload_refused")
        assert [
            f"{file}:3: dicom.tls.key = '{key}': {key}: does not belong to the certificate in {certificate}"
        ] == refused["faults"]
        assert 0 == scu("echoscu", port, unknown_limit, None).returncode
        assert 0x06 == open_before.release()


def test_validity_is_as_openssl_says(site: Authority) -> None:
    for file in (site.certificate, site.folder / "localhost.pem"):
        said = run("openssl", "x509", "-in", str(file), "-noout", "-dates").stdout
        expected = tuple(
            datetime.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
            for line in said.splitlines()
        )
        assert expected == validity(file.read_text())


@pytest.mark.parametrize(
    "text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(ValueError, match="holds"):
        validity(text)
