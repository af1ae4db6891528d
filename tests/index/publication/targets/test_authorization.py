"""How we are known at a target: each way, its files, its tokens; and that no secret is ever told."""

import base64
import json
import logging
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from index import TargetFilter
from index.publication.targets.http import authorization as module
from support.daemon import eventually
from support.dicom import instance
from support.fhir_server import FhirServer, Request, Response, outcome
from support.filling import keep
from support.manager import Authority
from support.targets import Site, here, target, there

Sites = Callable[..., Site]
SECRET = "gehe:im%"  # noqa: S105
TOKEN_PATH = "/fhir/token"  # noqa: S105


def with_tokens(server: FhirServer, accepts: Callable[[Request], bool], seconds: float = 3600) -> list[str]:
    """Let a server want tokens, and give them to those whom it accepts; return those that it gave."""
    given: list[str] = []

    def answer(request: Request) -> Response | None:
        if request.path == TOKEN_PATH:
            if not accepts(request):
                return Response(401, {"error": "invalid_client"})
            given.append(f"token{len(given) + 1}")
            body = {"access_token": given[-1], "token_type": "bearer", "expires_in": seconds}
            return Response(200, body, {"Content-Type": "application/json"})
        is_known = given and request.headers.get("authorization") == f"Bearer {given[-1]}"
        return None if is_known else Response(401, outcome("no token"))

    server.script = answer
    return given


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def test_basic_and_bearer_from_a_file_that_changes(
    site: Sites, server: FhirServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = site(target(server, authorization="basic", client="us", secret=SECRET))
    keep(made.index, instance(1))
    assert made.is_published()
    assert {basic("us", SECRET)} == {one.headers["authorization"] for one in server.requests}
    made.close()
    # A credential of the service manager, which is renewed while we run.
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "ehr-token").write_text("first\n")
    server.requests.clear()
    made = site(target(server, authorization="bearer", secret_file="ehr-token"))  # noqa: S106  a file
    keep(made.index, instance(2))
    assert made.is_published()
    (tmp_path / "ehr-token").write_text("second\n")
    keep(made.index, instance(3))
    assert made.is_published()
    said = [one.headers["authorization"] for one in server.requests]
    assert ["Bearer first", "Bearer second"] == sorted(set(said))
    (tmp_path / "ehr-token").unlink()
    keep(made.index, instance(4))
    words = "secret_file: ehr-token cannot be read: No such file or directory"
    assert eventually(lambda: {"ehr": words} == made.index.targets.failing())


def test_client_credentials(site: Sites, server: FhirServer) -> None:
    def accepts(request: Request) -> bool:
        form = parse_qs(request.body.decode())
        is_form = {"grant_type": ["client_credentials"], "scope": ["system/*.write"]} == form
        return is_form and request.headers["authorization"] == basic("us", "gehe%3Aim%25")

    given = with_tokens(server, accepts)
    own = {"client": "us", "secret": SECRET, "scope": "system/*.write"}
    token_url = f"http://127.0.0.1:{server.port}{TOKEN_PATH}"
    made = site(target(server, authorization="client-credentials", token_url=token_url, **own))
    for study in (1, 2, 3):
        keep(made.index, instance(study))
    assert made.is_published()
    assert ["token1"] == given
    assert here(made.index.data) == there(server)


def test_a_token_that_is_over_or_refused_is_asked_for_again(
    site: Sites, server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MARGIN_SECONDS", 0.0)
    given = with_tokens(server, lambda _: True)
    token_url = f"http://127.0.0.1:{server.port}{TOKEN_PATH}"
    own = {"client": "us", "secret": SECRET, "token_url": token_url}
    made = site(target(server, authorization="client-credentials", **own))
    keep(made.index, instance(1))
    assert made.is_published()
    given.append("another: the server has forgotten ours")
    keep(made.index, instance(2))
    assert made.is_published()
    assert "token3" == given[-1]
    assert {} == made.index.targets.failing()
    # None of a server that does not accept us.
    server.script = lambda request: Response(
        400 if request.path == TOKEN_PATH else 401, {"error": "invalid_client"}
    )
    keep(made.index, instance(3))
    words = "token_url gives no token: 400: invalid_client: check client, secret and scope"
    assert eventually(lambda: {"ehr": words} == made.index.targets.failing())
    assert {("waiting", 0)} == {(state, attempts) for _, _, state, attempts in made.left()}


@pytest.mark.parametrize("kind", ["rsa.pem", "ec.pem", "ec.jwk"])
def test_smart_backend_services(site: Sites, server: FhirServer, tmp_path: Path, kind: str) -> None:
    key = RSAKey.generate_key(2048) if kind == "rsa.pem" else ECKey.generate_key("P-384")
    file = tmp_path / kind
    if kind.endswith("jwk"):
        file.write_text(json.dumps({**key.as_dict(private=True), "kid": "ours"}))
    else:
        file.write_bytes(key.as_pem(private=True))
    token_url = f"http://127.0.0.1:{server.port}{TOKEN_PATH}"
    seen = []

    def accepts(request: Request) -> bool:
        form = parse_qs(request.body.decode())
        said = jwt.decode(form["client_assertion"][0], key, algorithms=["RS384", "ES384"])
        seen.append((said.header, said.claims))
        is_bearer = form["client_assertion_type"][0].endswith("client-assertion-type:jwt-bearer")
        return is_bearer and "authorization" not in request.headers

    with_tokens(server, accepts)
    own = {"client": "our-id", "signing_key": file, "token_url": token_url}
    made = site(target(server, authorization="smart-backend", **own))
    keep(made.index, instance())
    assert made.is_published()
    assert here(made.index.data) == there(server)
    ((header, claims),) = seen
    assert ("our-id", "our-id", token_url) == tuple(claims[name] for name in ("iss", "sub", "aud"))
    assert 0 < claims["exp"] - claims["iat"] <= 300
    assert ("ES384" if kind.startswith("ec") else "RS384", "JWT") == (header["alg"], header["typ"])
    assert (kind != "ec.jwk") or header["kid"] == "ours"


def test_a_key_that_is_none(site: Sites, server: FhirServer, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n")
    own = {"client": "us", "signing_key": file, "token_url": "http://127.0.0.1:9"}
    made = site(target(server, authorization="smart-backend", **own))
    keep(made.index, instance())
    words = f"{file}: is no private key of RSA or EC, as PEM or JWK"
    assert eventually(lambda: {"ehr": words} == made.index.targets.failing())


def test_a_certificate_of_ours(site: Sites, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    for name in ("localhost", "us"):
        authority.issue(name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(authority.folder / "localhost.pem", authority.folder / "localhost.key")
    both = tmp_path / "us.pem"
    both.write_bytes((authority.folder / "us.key").read_bytes() + (authority.folder / "us.pem").read_bytes())
    server = FhirServer(tls=context)
    own = {"url": server.url.replace("127.0.0.1", "localhost"), "ca": authority.certificate}
    made = site(target(server, certificate=both, **own))
    keep(made.index, instance())
    assert made.is_published()
    assert here(made.index.data) == there(server)
    made.close()
    made = site(target(server, "other", **own), data=tmp_path / "other")
    keep(made.index, instance())
    assert eventually(lambda: "check certificate and ca" in made.index.targets.failing().get("other", ""))
    assert {("waiting", 0)} == {(state, attempts) for _, _, state, attempts in made.left()}
    server.close()


def test_a_proxy(site: Sites, server: FhirServer) -> None:
    # A proxy gets the whole address in the first line (RFC 9112 Section 3.2.2); this one answers itself.
    proxy = FhirServer()
    made = site(target(server, url="http://ehr.invalid/fhir", proxy=f"http://127.0.0.1:{proxy.port}"))
    keep(made.index, instance())
    assert made.is_published()
    assert here(made.index.data) == there(proxy)
    assert {"ehr.invalid"} == {one.headers["host"] for one in proxy.requests}
    assert [] == server.requests
    proxy.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_to_know_us(site: Sites, tmp_path: Path, scheme: str) -> None:
    """https begins with CONNECT, whose answer is not the server's (RFC 9110 Section 9.3.6)."""
    proxy, file = FhirServer(), tmp_path / "proxy"
    file.write_text(f"us:{SECRET}\n")

    def known(request: Request) -> Response | None:
        if request.headers.get("proxy-authorization") != basic("us", SECRET):
            return Response(407, b"who are you?")
        return Response(502) if request.method == "CONNECT" else None

    proxy.script = known
    address = {"url": f"{scheme}://ehr.invalid/fhir", "proxy": f"http://127.0.0.1:{proxy.port}"}
    words = {
        "http": "407 Proxy Authentication Required: the proxy does not know us: check proxy",
        "https": "the proxy refuses: 407 Proxy Authentication Required",
    }
    file.write_text("us:wrong")
    made = site(target(proxy, **address, proxy_secret_file=file))
    keep(made.index, instance())
    assert eventually(lambda: words[scheme] in made.index.targets.failing().get("ehr", ""))
    file.write_text(f"us:{SECRET}\n")
    if scheme == "http":
        assert made.is_published()
        assert here(made.index.data) == there(proxy)
    else:
        assert eventually(lambda: "refuses: 502" in made.index.targets.failing().get("ehr", ""))
    assert all(SECRET not in why for why in made.index.targets.failing().values())
    proxy.close()


def test_no_secret_is_told(
    site: Sites, server: FhirServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = lambda request: Response(500, outcome("no")) if request.is_write else None
    settings = target(server, authorization="basic", client="us", secret=SECRET)
    with caplog.at_level(logging.DEBUG):
        made = site(settings)
        keep(made.index, instance())
        assert eventually(lambda: bool(made.index.targets.failing()))
        made.close()
    written = capsys.readouterr()
    entries = site().index.targets.listing.entries(TargetFilter(), waiting=True)
    told = [
        caplog.text,
        written.out,
        written.err,
        repr(settings),
        settings.model_dump_json(),
        *map(repr, entries),
    ]
    for text in told:
        assert SECRET not in text
        assert basic("us", SECRET) not in text


def test_openssl_keys_are_taken(tmp_path: Path, server: FhirServer) -> None:
    """What `openssl genpkey` writes, which is what people have."""
    for options in (("RSA",), ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")):
        file = tmp_path / "key.pem"
        command = ["openssl", "genpkey", "-algorithm", *options, "-out", str(file)]
        subprocess.run(command, check=True, capture_output=True)
        own = {"client": "us", "signing_key": file, "token_url": "http://127.0.0.1:9"}
        made = module.assertion(target(server, authorization="smart-backend", **own))
        assert 3 == len(made.split("."))
