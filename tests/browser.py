"""A real Chromium for tests: found, started headless, and quiet."""

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "chromedriver": ("chromedriver",)}
INSTALL = "apt-get install chromium chromium-driver"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers: root, and no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)


def find(program: str) -> str:
    """Path of a program; without it a test is skipped, but in CI that is an error."""
    for name in PROGRAMS[program]:
        path = shutil.which(name)
        if path:
            return path
    message = f"{program} is not installed; get it with: {INSTALL}"
    if os.environ.get("CI") == "true":
        raise RuntimeError(message)
    pytest.skip(message)


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """A headless browser with ``profile`` as its fresh user-data folder; closed at the end, whatever happens."""
    options = ChromeOptions()
    options.binary_location = find("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(find("chromedriver")))
    try:
        driver.get("about:blank")  # away from the new tab, whose own requests would stand in the log
        yield driver
    finally:
        driver.quit()


def look(driver: Chrome, width: int, dark: bool = False, height: int = 900, scale: float = 1) -> None:
    """Make the viewport ``width`` CSS pixels wide, in the light or the dark scheme.

    Windows cannot be narrower than 500 pixels, so this emulates the device.
    """
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def picture(driver: Chrome, path: Path) -> Path:
    """Save the whole page, not only the viewport, as PNG."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    path.write_bytes(base64.b64decode(shot["data"]))
    return path
