"""A browser that a WebDriver server drives, by selenium: Chromium and WebKitGTK."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from labbench.web.browsers.base import NEVER_S, Browser, BrowserError, first_line

if TYPE_CHECKING:
    from selenium.webdriver.common.options import ArgOptions

    from labbench.web.browsers.processes import Group

ASYNC = "const done = arguments[arguments.length - 1]; ({})(...Array.prototype.slice.call(arguments, 0, -1)).then(done)"


class Driven(Browser):
    """Driven through a server at ``url``, which runs in the group."""

    window_gone = "no such window"

    def __init__(self, group: Group, url: str, options: ArgOptions) -> None:
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver import Remote
        from selenium.webdriver.remote.client_config import ClientConfig
        from selenium.webdriver.remote.remote_connection import RemoteConnection
        from urllib3.exceptions import HTTPError

        super().__init__(group)
        config = ClientConfig(remote_server_addr=url, timeout=NEVER_S, keep_alive=True)
        try:
            self._driver = Remote(RemoteConnection(client_config=config), options=options)
            self._driver.set_script_timeout(NEVER_S)
            self._driver.set_page_load_timeout(NEVER_S)
            self._window = self._driver.current_window_handle
        except WebDriverException as error:
            raise BrowserError(f"{self.name} did not start: {first_line(error)}{group.told()}") from None
        except (HTTPError, OSError) as error:
            raise BrowserError(f"the driver of {self.name} has ended: {first_line(error)}{group.told()}") from None
        self.version = str(self._driver.capabilities["browserVersion"])

    def _open(self, url: str) -> None:
        self._driver.get(url)

    def _evaluate(self, function: str, arguments: list[str]) -> Any:
        return self._driver.execute_async_script(ASYNC.replace("{}", function), *arguments)

    def _replace_window(self) -> None:
        to = self._driver.switch_to
        to.new_window("tab")
        new = self._driver.current_window_handle
        to.window(self._window)
        self._driver.close()
        to.window(new)
        self._window = new

    def _press(self, css: str) -> None:
        self._driver.find_element("css selector", css).click()

    def _is_closed(self, told: str) -> bool:
        return self.window_gone in told or self._window not in self._driver.window_handles

    def _picture(self, width: int, height: int, dark: bool) -> bytes:
        if dark:
            raise BrowserError(f"{self.name} cannot be told to prefer a dark page; chromium can")
        self._driver.set_window_size(width, height)
        return base64.b64decode(self._driver.get_screenshot_as_base64())
