"""Firefox, by WebDriver BiDi straight to its own remote port: no geckodriver is needed."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from typing import Any

from labbench.web.browsers.base import START_S, Browser, BrowserError, PageError
from labbench.web.browsers.find import programs
from labbench.web.browsers.processes import Group

PREFERENCES: dict[str, bool | int | str] = {
    "dom.webgpu.enabled": True,
    "gfx.webgpu.ignore-blocklist": True,
    "media.autoplay.default": 0,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    # Nothing that a new profile would do by itself: updates, studies, reports, first-run pages.
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "browser.tabs.crashReporting.sendReport": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.max_script_run_time": 0,  # a page that is busy is labbench's to end
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.prefs.recommended": True,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}
VIEWPORT_SCRIPT = """(css) => {
  const element = document.querySelector(css);
  if (!element) return null;
  element.scrollIntoView({block: 'center'});
  const box = element.getBoundingClientRect();
  return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]);
}"""


class Firefox(Browser):
    """A headless Firefox; commands and their answers are JSON on a WebSocket (WebDriver BiDi, W3C)."""

    name = "firefox"
    content_kind = "tab"
    window_gone = "no such frame"

    def __init__(self, group: Group, url: str) -> None:
        import websocket

        super().__init__(group)
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._broken = False
        try:
            self._socket = websocket.create_connection(f"{url}/session", timeout=START_S, suppress_origin=True)
        except (OSError, websocket.WebSocketException) as error:
            raise BrowserError(f"firefox does not answer at its remote port: {error}{group.told()}") from None
        self._socket.settimeout(None)
        threading.Thread(target=self._listen, daemon=True).start()
        capabilities = self._command("session.new", capabilities={})["capabilities"]
        self.version = str(capabilities["browserVersion"])
        self._window = self._command("browsingContext.getTree", maxDepth=0)["contexts"][0]["context"]

    def close(self) -> None:
        """End all processes and remove the profile."""
        super().close()
        with self._arrived:
            self._broken = True
            self._arrived.notify_all()
        self._socket.close()

    def _listen(self) -> None:
        import websocket

        try:
            while text := self._socket.recv():
                message = json.loads(text)
                with self._arrived:
                    if "id" in message:
                        self._answers[message["id"]] = message
                        self._arrived.notify_all()
        except (OSError, websocket.WebSocketException):
            pass
        finally:
            with self._arrived:
                self._broken = True
                self._arrived.notify_all()

    def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        with self._arrived:
            self._arrived.wait_for(lambda: number in self._answers or self._broken)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise BrowserError("the connection to firefox has ended")
        if answer["type"] == "error":
            raise BrowserError(f"{answer['error']}: {answer['message']}")
        found: dict[str, Any] = answer["result"]
        return found

    def _open(self, url: str) -> None:
        self._command("browsingContext.navigate", context=self._window, url=url, wait="complete")

    def _evaluate(self, function: str, arguments: list[str]) -> Any:
        answer = self._command(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[{"type": "string", "value": text} for text in arguments],
            target={"context": self._window},
            awaitPromise=True,
        )
        return answer.get("result", {}).get("value")

    def _replace_window(self) -> None:
        old, self._window = self._window, self._command("browsingContext.create", type="tab")["context"]
        self._command("browsingContext.close", context=old)

    def _press(self, css: str) -> None:
        place = self._evaluate(VIEWPORT_SCRIPT, [css])
        if place is None:
            raise PageError(f"no element {css}")
        x, y = (round(value) for value in json.loads(place))
        pointer = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._command(
            "input.performActions",
            context=self._window,
            actions=[{"type": "pointer", "id": "mouse", "actions": pointer}],
        )

    def _is_closed(self, told: str) -> bool:
        return self.window_gone in told

    def _picture(self, width: int, height: int, dark: bool) -> bytes:
        if dark:
            raise BrowserError("firefox cannot be told to prefer a dark page; chromium can")
        self._command("browsingContext.setViewport", context=self._window, viewport={"width": width, "height": height})
        return base64.b64decode(self._command("browsingContext.captureScreenshot", context=self._window)["data"])


def start(group: Group, *, webgpu: bool) -> Firefox:
    """A Firefox whose processes are of the group."""
    where = programs("firefox")
    profile = group.folder / "profile"
    profile.mkdir()
    lines = [
        f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
        for name, value in {**PREFERENCES, "dom.webgpu.enabled": webgpu}.items()
    ]
    (profile / "user.js").write_text("".join(lines))
    group.start(
        [where["browser"], "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0"],
        MOZ_CRASHREPORTER_DISABLE="1",
    )
    told = profile / "WebDriverBiDiServer.json"

    def address() -> str | None:
        try:
            found = json.loads(told.read_text())
            return f"ws://{found['ws_host']}:{found['ws_port']}"
        except (OSError, ValueError):
            return None

    return Firefox(group, group.wait("the remote port of firefox", address, START_S))
