"""Where the browsers of this machine are; for each that is missing, the command that gets it."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from labbench.cells import BROWSERS
from labbench.web.browsers.base import Unavailable

NAMES = BROWSERS
# Browser -> role -> (programs or patterns of their paths, Debian package)
PROGRAMS: dict[str, dict[str, tuple[tuple[str, ...], str]]] = {
    "chromium": {
        "browser": (("chromium", "chromium-browser", "google-chrome"), "chromium"),
        "driver": (("chromedriver",), "chromium-driver"),
    },
    "firefox": {"browser": (("firefox-esr", "firefox"), "firefox-esr")},
    "webkitgtk": {
        "browser": (
            tuple(
                f"{root}/webkit2gtk-4.{minor}/MiniBrowser" for minor in "10" for root in ("/usr/lib/*", "/usr/libexec")
            ),
            "webkit2gtk-driver",
        ),
        "driver": (("WebKitWebDriver",), "webkit2gtk-driver"),
        "display": (("Xvfb",), "xvfb"),
    },
}
MODULES = {"chromium": "selenium", "firefox": "websocket", "webkitgtk": "selenium"}


def programs(name: str) -> dict[str, Path]:
    """Paths of what a browser needs, by role: ``browser``, ``driver``, ``display``.

    Raises
    ------
    Unavailable
        If something is missing; the message says how to get it.
    """
    found = {role: _where(names) for role, (names, _) in PROGRAMS[name].items()}
    if lacking := [role for role, path in found.items() if path is None]:
        what = ", ".join(Path(PROGRAMS[name][role][0][0]).name for role in lacking)
        packages = " ".join(dict.fromkeys(PROGRAMS[name][role][1] for role in lacking))
        raise Unavailable(f"{name}: {what} not found. Debian, Ubuntu: sudo apt-get install {packages}")
    _require_module(name)
    return {role: path for role, path in found.items() if path is not None}


def missing(name: str) -> str | None:
    """Why a browser cannot be used here and how to get it; None if it can."""
    try:
        programs(name)
    except Unavailable as reason:
        return str(reason)
    return None


def examined(name: str) -> str:
    """For people: ``ready``, and where it is, or why it cannot be used."""
    return missing(name) or f"ready: {programs(name)['browser']}"


def _where(names: tuple[str, ...]) -> Path | None:
    for name in names:
        found = sorted(glob.glob(name)) if "/" in name else [path for path in [shutil.which(name)] if path]
        if found:
            return Path(found[-1])
    return None


def _require_module(name: str) -> None:
    from importlib.util import find_spec

    if find_spec(MODULES[name]) is None:
        raise Unavailable(f"{name}: the Python package that drives it is missing: pip install 'labbench[web]'")
