"""WebKitGTK's MiniBrowser, by selenium and WebKitWebDriver, on a virtual display."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
from pathlib import Path

from labbench.web.browsers.base import START_S
from labbench.web.browsers.driven import Driven
from labbench.web.browsers.find import programs
from labbench.web.browsers.processes import Group

STATUS = "browser.status"


class WebKitGTK(Driven):
    """A MiniBrowser on an Xvfb of its own."""

    name = "webkitgtk"
    content_kind = "web"

    def _ended_with_its_window(self, told: str) -> bool:
        """The driver says the same of every end, but only this one is without an error."""
        with contextlib.suppress(OSError):
            return (self.group.folder / STATUS).read_text().strip() == "0"
        return False


def start(group: Group) -> WebKitGTK:
    """A MiniBrowser whose processes are of the group."""
    from selenium.webdriver import WebKitGTKOptions

    where = programs("webkitgtk")
    group.environment["DISPLAY"] = _display(group, where["display"])
    group.environment["JSC_useSharedArrayBuffer"] = "1"  # without it there is none, and so one thread
    options = WebKitGTKOptions()
    options.binary_location = str(_told(group.folder, where["browser"]))
    options.add_argument("--automation")
    port = _free_port()
    group.start([where["driver"], f"--port={port}", "--host=127.0.0.1"])
    group.wait("WebKitWebDriver", lambda: _answers(port) or None, START_S)
    return WebKitGTK(group, f"http://127.0.0.1:{port}", options)


def _told(folder: Path, browser: Path) -> Path:
    """A script that runs the browser and writes its exit status down, of which the driver says nothing."""
    script = folder / "browser"
    script.write_text(f'#!/bin/sh\n{shlex.quote(str(browser))} "$@"\necho $? > {shlex.quote(str(folder / STATUS))}\n')
    script.chmod(0o700)
    return script


def _display(group: Group, xvfb: Path) -> str:
    """Start an X server that draws nowhere; it chooses a free display and tells it."""
    log = group.start([xvfb, "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"])

    def number() -> str | None:
        match = re.search(r"^(\d+)$", log.read_text(errors="replace"), re.MULTILINE) if log.exists() else None
        return match[1] if match else None

    return f":{group.wait('Xvfb', number, START_S)}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
