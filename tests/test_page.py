"""The page in a real browser: what arrives now, where a study is, why it is not in the EHR, and to mend it.

With PICTURES=docs in the environment, the pictures of the pages for the documentation are made anew.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from index import Index
from support.browser import Browser, browsing
from support.daemon import Daemon, eventually, run
from support.dicom import ROOT, instance, save
from support.filling import STORAGE, receive

WIDTHS = (360, 1280, 2560)
STUDY = f"{ROOT}.1"
# A = begins another component group of a name.
EVIL_NAME = "<script>document.write('owned')</script><img>"
EVIL = "<script>document.title='owned'</script><img src=/x onerror=document.title='owned'>"
CONFIGURATION = """
[dicom]
called_aets = ["ANY", "IMAGINGSTUDYD"]
[http]
local = "all"
[[peers]]
aet = "ARCHIVE"
host = "127.0.0.1"
port = 9
"""
PATHS = (
    "/",
    "/studies",
    f"/studies/{STUDY}",
    f"/studies/{STUDY}/series/{STUDY}.1",
    f"/studies/{STUDY}/resources/r4",
    f"/studies/{STUDY}/match",
    f"/instances/{STUDY}.1.1",
    "/worklist",
    "/orders/new",
    "/orders/1",
    "/operating",
    "/operating/delete",
    "/operating/verify",
    "/orders/99",
)


@dataclass
class Seen:
    """A daemon, the browser that looks at it, and what was seen of it while it had no study."""

    daemon: Daemon
    browser: Browser
    empty: list[str]

    def send(self, folder: Path, *datasets: object) -> None:
        """Send instances."""
        for number, dataset in enumerate(datasets):
            save(dataset, folder / f"{number}.dcm")
        assert 0 == self.daemon.send(folder).returncode


@contextmanager
def looking(folder: Path) -> Iterator[Seen]:
    """Yield a daemon of this folder and a browser."""
    settings = folder / "site.toml"
    settings.write_text(CONFIGURATION)
    daemon = Daemon(folder / "data", "--config", str(settings))
    try:
        with browsing(f"http://127.0.0.1:{daemon.http[1]}") as browser:
            yield Seen(daemon, browser, [])
    finally:
        daemon.stop()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """With no study first, then with three: of a strange name, with a conflict, of two worlds' scripts."""
    folder = tmp_path_factory.mktemp("page")
    with looking(folder) as seen:
        for path in ("/", "/studies", "/worklist"):
            seen.empty += problems(seen.browser, path, (1280,))
        seen.browser.open("/")
        assert "There is no study yet" in seen.browser.text
        names = {1: f"{EVIL_NAME}^Jane", 2: "Obermüller^Änne", 3: "Yamada^Tarou=山田^太郎=やまだ^たろう"}
        seen.send(
            folder / "sent",
            *(
                instance(
                    study,
                    1,
                    number,
                    PatientName=name,
                    SpecificCharacterSet="ISO_IR 192",
                    SeriesDescription=EVIL[:64],
                )
                for study, name in names.items()
                for number in (1, 2)
            ),
        )
        other = instance(1, 1, 1, PatientName="Other^Name", StudyDescription=EVIL)
        seen.send(folder / "conflicting", other)
        add_order(seen.browser, "P77", "Doe^Jane")
        yield seen


def problems(browser: Browser, path: str, widths: tuple[int, ...] = WIDTHS) -> list[str]:
    """Open a page in light and dark at these widths; return what is wrong with it."""
    found = []
    browser.open(path)
    for scheme in ("dark", "light"):
        browser.prefer(scheme)
        found += [f"{path} {scheme} {fault}" for fault in browser.faults()]
    for width in widths:
        browser.resize(width)
        found += [f"{path} is too wide at {width}"] if browser.overflow() > 0 else []
    browser.resize(1280)
    return found + browser.complaints()


def add_order(browser: Browser, patient: str, name: str, accession: str = "") -> None:
    browser.open("/worklist")
    browser.follow("Add an order")
    browser.fill(patient_id=patient, patient_name=name, accession=accession, station="CT1", procedure="Head")
    browser.press("Add it")
    assert browser.shows("is in the worklist")


def test_with_no_study(seen: Seen) -> None:
    assert [] == seen.empty


@pytest.mark.parametrize("path", PATHS)
def test_everybody_can_use_it_at_any_width(seen: Seen, path: str) -> None:
    assert [] == problems(seen.browser, path)
    assert "owned" != seen.browser.driver.title


def test_scripts_in_names_are_text(seen: Seen) -> None:
    browser = seen.browser
    browser.open("/studies?text=jane")
    browser.follow("<script>")
    assert f"{EVIL_NAME}, Jane" == browser.text_of("h1")
    assert browser.driver.title.startswith(EVIL_NAME)
    assert not browser.all("main script, img[src='/x']")
    assert [] == browser.complaints()


def test_what_arrives_now(seen: Seen, tmp_path: Path) -> None:
    """The page follows by itself, also what is refused."""
    browser = seen.browser
    browser.open("/")
    assert browser.shows("live")
    seen.send(tmp_path / "new", instance(50, 1, 1))
    before = browser.text_of("#plot")
    seen.send(tmp_path / "newer", instance(51, 1, 1))
    assert eventually(lambda: before != browser.text_of("#plot"))
    run("echoscu", "-aet", "STRANGER", "-aec", "WRONG", seen.daemon.host, str(seen.daemon.port))
    assert eventually(lambda: "STRANGER" in browser.text_of("#refusals"))
    assert "called aet" in browser.text_of("#refusals")
    assert "ok" == browser.text_of("#health .state")
    assert browser.first_paint() > 0


def test_an_association_is_shown_while_it_lasts(seen: Seen) -> None:
    from support.archive import associated
    from support.dicom import CT_IMAGE_STORAGE

    browser = seen.browser
    browser.open("/")
    assert "Nobody is connected" in browser.text_of("#associations")
    peer = associated(seen.daemon.port, CT_IMAGE_STORAGE)
    assert eventually(lambda: "SCU" in browser.text_of("#associations"))
    peer.socket.close()
    assert eventually(lambda: "Nobody is connected" in browser.text_of("#associations"))


def test_a_study_is_found_by_half_a_name(seen: Seen) -> None:
    browser = seen.browser
    for half in ("oberm", "muller", "ÄNN", "P2"):
        browser.open("/")
        browser.fill(text=half)
        browser.press("Search")
        assert browser.shows("Obermüller, Änne"), half
        assert 1 == len(browser.all("tbody tr")), half
    browser.open("/studies?text=山")
    assert 1 == len(browser.all("tbody tr"))


def test_why_it_is_not_in_the_ehr_and_to_mend_it(seen: Seen) -> None:
    browser = seen.browser
    browser.open(f"/studies/{STUDY}")
    why = browser.text_of(".reasons")
    assert "In conflict" in why
    assert "No order" in why
    assert "kept aside" in browser.text_of(".story")
    browser.follow("Accept it")
    browser.press("Accept it")
    assert browser.shows("now has the data set that was kept aside")
    browser.open(f"/instances/{STUDY}.1.1")
    assert "Other^Name" in browser.text


def test_which_order_it_has_met(seen: Seen, tmp_path: Path) -> None:
    browser, study = seen.browser, f"{ROOT}.60"
    seen.send(tmp_path / "new", instance(60, 1, 1, PatientID="P60", AccessionNumber=None))
    browser.open(f"/studies/{study}")
    assert "It has met no order" in browser.text
    add_order(browser, "P60", "Doe^Jane", "ACC60")
    browser.open(f"/studies/{study}/match")
    browser.find("label[for^='o']").click()
    browser.press("Match it")
    assert browser.shows("is matched to order")
    browser.open(f"/studies/{study}")
    assert "accession ACC60" in browser.text
    browser.open("/worklist?station=CT1")
    browser.find(f"a[href='/studies/{study}']").click()
    browser.follow("Match or unmatch")
    browser.press("Unmatch it")
    assert browser.shows("has no order now")


def test_operating_says_what_it_did(seen: Seen, tmp_path: Path) -> None:
    browser = seen.browser
    seen.send(tmp_path / "new", instance(70, 1, 1))
    browser.open("/operating/echo")
    browser.press("Call it")
    assert browser.shows("No echo: peer ARCHIVE: cannot be reached")
    browser.open("/operating/reload")
    browser.press("Reload")
    assert browser.shows("Reloaded: 1 peers")
    browser.open(f"/studies/{ROOT}.70")
    browser.follow("Delete the study")
    browser.press("Delete for good")
    assert browser.shows(f"Deleted study {ROOT}.70: 1 instances")


def test_the_keyboard_is_enough(seen: Seen) -> None:
    from selenium.webdriver import Keys

    browser = seen.browser
    browser.open("/")
    browser.find("body").send_keys(Keys.TAB)
    assert "To the content" == browser.driver.switch_to.active_element.text
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER, Keys.TAB)
    assert "text" == browser.driver.switch_to.active_element.get_attribute("id")
    browser.driver.switch_to.active_element.send_keys("oberm", Keys.ENTER)
    assert browser.shows("Obermüller")


def test_pictures(seen: Seen, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PICTURES", tmp_path))
    for name, path in (("live", "/"), ("study", f"/studies/{ROOT}.2")):
        seen.browser.resize(1000, 800)
        seen.browser.open(path)
        assert seen.browser.first_paint() > 0
        seen.browser.picture(folder / f"page-{name}.png")
        assert (folder / f"page-{name}.png").stat().st_size > 10_000
    seen.browser.resize(1280)


@pytest.mark.long
def test_a_hundred_thousand_studies(tmp_path: Path) -> None:
    """Each page of the list is painted within 0.3 s, wherever it is and however it is sorted."""
    with Index(tmp_path / "data", STORAGE) as index:
        for study in range(100_000):
            receive(index, instance(study, 1, 1, PatientName=f"Family{study}^Given{study % 97}"))
        index.publish()
    with looking(tmp_path) as seen:
        browser = seen.browser
        browser.open("/studies")
        assert "100000 studies" in browser.text
        for path in ("/", *(f"/studies?sort={sort}" for sort in ("name", "-received", "started", "patient"))):
            browser.open(path)
            print(path, browser.first_paint())
        for _ in range(5):
            browser.follow("Next page")
            print("next", browser.first_paint())
        for asked in ("family99", "amily9999", "given7 family1", "P4711", "state=unmatched"):
            began = time.perf_counter()
            browser.open(f"/studies?{asked if '=' in asked else 'text=' + asked}")
            print(asked, browser.first_paint(), time.perf_counter() - began)
            assert browser.all("tbody tr")
        assert [] == problems(browser, "/studies")
