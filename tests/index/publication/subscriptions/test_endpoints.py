"""Which addresses notifications may be sent to: this machine sends no request anywhere else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from index.publication.subscriptions.endpoints import is_allowed
from scp.daemon.checks import find_warnings
from scp.settings.http import HttpSettings
from scp.settings.sections import Configuration

pytestmark = pytest.mark.sqlite  # nothing here depends on the engine
PREFIX = "https://ehr.example/hooks"
ALLOWED = [
    "https://ehr.example/hooks",
    "https://ehr.example/hooks/",
    "https://ehr.example/hooks/a/b?key=1",
    "https://EHR.example/hooks/a",
    "https://ehr.example:443/hooks/a",
    "https://ehr.example/hooks?x=..",
]
REFUSED = [
    "",
    "https://ehr.example",
    "https://ehr.example/hooksandmore",
    "https://ehr.example/HOOKS/a",
    "http://ehr.example/hooks/a",
    "https://ehr.example:8443/hooks/a",
    "https://ehr.example.evil.example/hooks/a",
    "https://evil.example/https://ehr.example/hooks",
    "https://ehr.example/hooks/../admin",
    "https://ehr.example/hooks/%2e%2E/admin",
    "https://ehr.example/hooks/..%2fadmin",
    "https://ehr.example/hooks/.%2e/admin",
    "https://ehr.example/hooks//evil.example",
    "https://ehr.example/hooks/a\\..\\..\\admin",
    "https://ehr.example\\@evil.example/hooks/a",
    "https://user:password@ehr.example/hooks/a",
    "https://ehr.example@evil.example/hooks/a",
    "https://ehr.example/hooks/a#b",
    "https://ehr.example/hooks/a b",
    "https://ehr.example/hooks/a\nHost: evil",
    "https://ehr.example\t/hooks",
    "//ehr.example/hooks",
    "file:///etc/passwd",
    "ftp://ehr.example/hooks",
    "https:///hooks",
    "https://[::1/hooks",
    "https://ehr.example:99999/hooks",
    "https://ehr.example/hooks/\u0130",
    "https://ehr.example/hooks/" + "a" * 3000,
]


@pytest.mark.parametrize("address", ALLOWED)
def test_allowed(address: str) -> None:
    assert is_allowed(address, [PREFIX])


@pytest.mark.parametrize("address", REFUSED, ids=range(len(REFUSED)))
def test_refused(address: str) -> None:
    assert not is_allowed(address, [PREFIX])
    assert not is_allowed(address, [])


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("https:/ehr.xampl@\\%2e.#?[]0 "), max_size=60))
def test_nothing_is_below_but_what_is(rest: str) -> None:
    # Whatever stands behind: the host is the one that the HTTP library would ask.
    import httpx

    if is_allowed(f"https://{rest}", [PREFIX]):
        assert "ehr.example" == httpx.URL(f"https://{rest}").host
        assert httpx.URL(f"https://{rest}").path.startswith("/hooks")


@pytest.mark.parametrize(
    "prefix", ["", "ehr.example", "https://ehr.example/a?b", "https://u@ehr.example", "https://*/"]
)
def test_a_prefix_is_an_address(prefix: str) -> None:
    with pytest.raises(ValidationError, match="subscriptions"):
        HttpSettings(subscriptions=(prefix,))


def test_check_says_who_may_have_requests_sent() -> None:
    prefixes = ("http://ehr.example/hooks", "http://127.0.0.1:9000/")
    said = [
        one
        for one in find_warnings(Configuration(http=HttpSettings(subscriptions=prefixes)))
        if "subscr" in one
    ]
    assert [True, False] == ["rights read and write" in one for one in said]
    assert "readable, without TLS" in said[1]
    assert not [one for one in find_warnings(Configuration()) if "subscr" in one]
