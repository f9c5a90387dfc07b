"""Real browsers: found, started, called with deadlines, ended without a trace.

>>> with open_browser("firefox") as browser:
...     browser.go(url)
...     browser.call("labbench.environment", None, 30)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labbench.config import require_known
from labbench.web.browsers.base import (
    Browser,
    BrowserError,
    Closed,
    Crashed,
    Ended,
    Hung,
    PageError,
    TooMuchMemory,
    Unavailable,
)
from labbench.web.browsers.find import NAMES, missing

if TYPE_CHECKING:
    from labbench.web.browsers.processes import Group

__all__ = [
    "NAMES", "Browser", "BrowserError", "Closed", "Crashed", "Ended", "Hung", "PageError", "TooMuchMemory", "Unavailable",
    "missing", "open_browser",
]  # fmt: skip


def open_browser(
    name: str,
    *,
    webgpu: bool = True,
    webnn: bool = True,
    audio_file: Path | None = None,
    sound: bool = False,
) -> Browser:
    """Start a headless browser with a fresh profile; close it, or use it as a context manager.

    Parameters
    ----------
    name : str
        ``chromium``, ``firefox`` or ``webkitgtk``.
    webgpu, webnn : bool
        Whether to switch these interfaces on, where the browser has a switch.
    audio_file : Path, optional
        WAV that Chromium's microphone plays; Firefox's plays a tone, WebKitGTK has none.
    sound : bool
        Whether to give it a sound server whose output nobody hears (PulseAudio), which Firefox and WebKitGTK need to play anything.

    Raises
    ------
    ConfigError
        For a name that is not known.
    Unavailable
        If it is not installed; the message says how to get it.
    BrowserError
        If it does not start.
    """
    from labbench.web.browsers.processes import Group
    from labbench.web.browsers.profiles import sweep

    require_known("browser", [name], NAMES)
    if reason := missing(name):
        raise Unavailable(reason)
    sweep()
    group = Group()
    try:
        if sound:
            from labbench.web.browsers.sound import start as start_sound

            start_sound(group)
        return _start(name, group, webgpu=webgpu, webnn=webnn, audio_file=audio_file)
    except BaseException:
        group.close()
        raise


def _start(name: str, group: Group, *, webgpu: bool, webnn: bool, audio_file: Path | None) -> Browser:
    if name == "firefox":
        from labbench.web.browsers import firefox

        return firefox.start(group, webgpu=webgpu)
    if name == "webkitgtk":
        from labbench.web.browsers import webkit

        return webkit.start(group)
    from labbench.web.browsers import chromium

    return chromium.start(group, webgpu=webgpu, webnn=webnn, audio_file=audio_file, has_gpu=has_gpu())


def has_gpu() -> bool:
    """Whether this machine has a device node of a GPU (Linux), so that a browser may find an adapter that is not in software."""
    return any(Path("/dev/dri").glob("renderD*")) or Path("/dev/nvidia0").exists()
