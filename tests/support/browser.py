"""A real browser that looks at the page: Debian's chromium, driven by selenium."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from support.daemon import eventually

AXE = Path(__file__).parent.parent / "node_modules/axe-core/axe.min.js"
# What axe-core calls a fault that keeps somebody from using the page (its own four impacts).
GRAVE = ("serious", "critical")
_RUN = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done);"


class Browser:
    """One window. `base`: the address of the daemon."""

    def __init__(self, driver: Chrome, base: str) -> None:
        self.driver = driver
        self.base = base

    def open(self, path: str) -> None:
        """Open a page and wait until it is loaded."""
        self.driver.get(self.base + path)

    def resize(self, width: int, height: int = 900) -> None:
        """Make the window so wide, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        """Prefer light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    @property
    def text(self) -> str:
        """What the page shows."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def shows(self, text: str) -> bool:
        """Wait until the page shows a text; return whether it does."""
        return eventually(lambda: text in self.text)

    def find(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all of them."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def follow(self, text: str) -> None:
        """Follow the link that has this text."""
        self.driver.find_element(By.PARTIAL_LINK_TEXT, text).click()

    def fill(self, **fields: str) -> None:
        """Write into fields, by their ids."""
        for name, value in fields.items():
            field = self.find(f"#{name}")
            field.clear()
            field.send_keys(value)

    def press(self, text: str) -> None:
        """Press the button that has this text."""
        self.driver.find_element(By.XPATH, f"//button[normalize-space()='{text}']").click()

    def run(self, script: str) -> Any:
        """Run a script in the page; return its value."""
        return self.driver.execute_script(script)

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - window.innerWidth"))

    def complaints(self) -> list[str]:
        """Return what the console has said of scripts and of the Content-Security-Policy since last asked."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["source"] in ("javascript", "security") or "Security Policy" in entry["message"]
        ]

    def faults(self) -> list[str]:
        """Return the grave faults that axe-core finds on the page."""
        if not self.run("return 'axe' in window"):
            self.driver.execute_script(AXE.read_text())
        found = self.driver.execute_async_script(_RUN)
        return [
            f"{one['id']}: {json.dumps([node['html'][:200] for node in one['nodes']])}"
            for one in found["violations"]
            if one["impact"] in GRAVE
        ]

    def first_paint(self) -> float:
        """Return when the page was painted first, in ms since the navigation began (W3C Paint Timing)."""
        script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
        assert eventually(lambda: self.run(script) > 0)
        return float(self.run(script))

    def picture(self, path: Path) -> None:
        """Write a picture of the window."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browsing(base: str) -> Iterator[Browser]:
    """Yield a browser that begins at this address."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with TemporaryDirectory() as profile:
        options.add_argument(f"--user-data-dir={profile}")
        driver = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            yield Browser(driver, base)
        finally:
            driver.quit()
