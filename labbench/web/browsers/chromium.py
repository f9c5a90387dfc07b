"""Chromium, by selenium and its own chromedriver; WebGPU on SwiftShader, WebNN where the build has it, sound from a file."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from labbench.web.browsers.base import START_S
from labbench.web.browsers.driven import Driven
from labbench.web.browsers.find import programs
from labbench.web.browsers.processes import Group

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers: root, and no user namespaces; the pages are labbench's own
    "--disable-dev-shm-usage",  # a container's /dev/shm is small
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
WEBGPU = ("--enable-unsafe-webgpu",)
SOFTWARE_WEBGPU = "--use-webgpu-adapter=swiftshader"
WEBNN = "--enable-features=WebMachineLearningNeuralNetwork"
MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
PORT = re.compile(r"started successfully on port (\d+)")


class Chromium(Driven):
    """A headless Chromium."""

    name = "chromium"
    content_kind = "renderer"

    def _picture(self, width: int, height: int, dark: bool) -> bytes:
        """Windows cannot be narrower than 500 pixels, so this emulates the device."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._command("Emulation.setDeviceMetricsOverride", metrics)
        self._command("Emulation.setEmulatedMedia", {"features": scheme})
        return base64.b64decode(self._command("Page.captureScreenshot", {"format": "png"})["data"])

    def _command(self, name: str, arguments: dict) -> dict:
        path = f"/session/{self._driver.session_id}/goog/cdp/execute"
        executor = self._driver.command_executor
        executor.add_command("cdp", "POST", path)  # type: ignore[union-attr]
        return dict(self._driver.execute("cdp", {"cmd": name, "params": arguments})["value"])


def start(group: Group, *, webgpu: bool, webnn: bool, audio_file: Path | None, has_gpu: bool) -> Chromium:
    """A Chromium whose processes are of the group.

    Parameters
    ----------
    has_gpu : bool
        WebGPU asks for the machine's own adapter; else for SwiftShader, the one in software.
    audio_file : Path, optional
        WAV that the microphone plays.
    """
    from selenium.webdriver import ChromeOptions

    where = programs("chromium")
    options = ChromeOptions()
    options.binary_location = str(where["browser"])
    flags = [*FLAGS, f"--user-data-dir={group.folder / 'profile'}", *MICROPHONE]
    if webgpu:
        flags += WEBGPU if has_gpu else (*WEBGPU, SOFTWARE_WEBGPU)
    if webnn:
        flags.append(WEBNN)
    if audio_file is not None:
        flags.append(f"--use-file-for-fake-audio-capture={audio_file}")
    for flag in flags:
        options.add_argument(flag)
    log = group.start([where["driver"], "--port=0"])

    def port() -> int | None:
        match = PORT.search(log.read_text(errors="replace")) if log.exists() else None
        return int(match[1]) if match else None

    return Chromium(group, f"http://127.0.0.1:{group.wait('chromedriver', port, START_S)}", options)
