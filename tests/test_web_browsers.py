"""Browsers are driven with deadlines, their deaths are told apart, and nothing of them is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import web

from labbench.config import ConfigError
from labbench.web.browsers import (
    NAMES,
    Browser,
    Closed,
    Crashed,
    Hung,
    PageError,
    TooMuchMemory,
    find,
    missing,
    open_browser,
    profiles,
)

pytestmark = pytest.mark.alone
SOON_S = 30  # for what must happen by itself


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with web.page() as address:
        yield address


@pytest.fixture(params=NAMES)
def browser(request, url) -> Iterator[Browser]:
    with open_browser(web.need(request.param)) as one:
        one.go(url)
        yield one


def soon(condition) -> bool:
    """Whether something comes true within a moment."""
    late = time.monotonic() + SOON_S
    while not condition():
        if time.monotonic() > late:
            return False
        time.sleep(0.05)
    return True


def nothing_left(folder: Path, pids: list[int]) -> bool:
    """Whether folder and processes go within a moment."""
    return soon(lambda: not folder.exists() and not any(map(_lives, pids)))


def _lives(pid: int) -> bool:
    try:
        return (
            psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        )  # those wait for the system's first process, not for labbench
    except psutil.NoSuchProcess:
        return False


def kill(browser: Browser, what: str) -> None:
    for process, kind in browser.group.kinds():
        if kind == what:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def during(browser: Browser, action, function: str = "page.wait", argument=30) -> None:
    """A call of the page during which something happens to the browser."""
    timer = threading.Timer(0.5, action)
    timer.start()
    try:
        browser.call(function, argument, SOON_S)
    finally:
        timer.join()


def test_a_page_is_called_and_a_page_in_an_endless_loop_is_ended_at_its_deadline(browser, url, tmp_path):
    value = {"a": [1, 2.5, None], "ü": "\u2028"}
    assert browser.call("page.echo", value) == value
    with pytest.raises(PageError, match=r"^RangeError: no room left$"):
        browser.call("page.fail")
    held = browser.call("page.hold", 200) and browser.memory()[browser.content_kind]
    browser.renew()
    browser.go(url)
    assert soon(lambda: browser.memory()[browser.content_kind] < held - 100e6), (
        "nothing is left of the last one's memory"
    )
    browser.click("button")
    assert browser.call("page.pressed") is True, "a click is a user's gesture"
    memory = browser.memory()
    assert memory[browser.content_kind] > 10e6
    assert memory["browser"] > 10e6
    assert browser.version[0].isdigit()
    browser.screenshot(tmp_path / "page.png", 400, 600)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")

    folder, pids = browser.group.folder, [process.pid for process in browser.group.tree()]
    with pytest.raises(Hung, match=r"page\.hang\(\) gave no answer for 1 s"):
        browser.call("page.hang", deadline_s=1)
    assert nothing_left(folder, pids)
    with pytest.raises(Hung):
        browser.call("page.echo", 1)


def test_the_death_of_the_page_s_process_is_a_crash(browser):
    with pytest.raises(Crashed, match="the page's process has ended"):
        during(browser, lambda: kill(browser, browser.content_kind))
    assert not browser.group.folder.exists()


def test_the_death_of_the_browser_is_a_crash(browser):
    with pytest.raises(Crashed, match="the browser's process has ended"):
        during(browser, lambda: kill(browser, "browser"))
    assert not browser.group.folder.exists()


def test_a_closed_window_is_no_crash(browser):
    own = browser.name == "firefox"  # a page may close its window; in the others it may not
    with pytest.raises(Closed, match="the window was closed"):
        during(browser, lambda: own or _close_window(browser), "page.shut" if own else "page.wait")
    assert not browser.group.folder.exists()


def _close_window(browser) -> None:
    """As a person would, beside the driver, which waits for the page."""
    if browser.name == "webkitgtk":
        driver = browser._driver
        url = f"{driver.command_executor._client_config.remote_server_addr}/session/{driver.session_id}/window"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
    else:
        port = browser._driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
        with urllib.request.urlopen(f"http://{port}/json/list") as answer:
            window = next(one["id"] for one in json.load(answer) if one["type"] == "page")
        urllib.request.urlopen(f"http://{port}/json/close/{window}").close()


def test_a_browser_over_its_memory_limit_is_ended(url):
    with open_browser(web.need("webkitgtk")) as browser:
        browser.go(url)
        browser.memory_limit_bytes = 1
        with pytest.raises(TooMuchMemory, match="over the limit"):
            browser.call("page.wait", 20, SOON_S)


OWNER = """
import sys, time
from labbench.web.browsers import open_browser
browser = open_browser(sys.argv[1])
print(browser.group.folder, browser.group._keeper.pid, *(process.pid for process in browser.group.tree()), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_where_labbench_itself_is_killed(name):
    owner, folder, keeper, pids = _owner(web.need(name))
    owner.kill()
    owner.wait()
    assert nothing_left(folder, [keeper, *pids])


def test_what_a_killed_keeper_leaves_is_swept_at_the_next_start():
    owner, folder, keeper, pids = _owner(web.need("chromium"))
    assert profiles.sweep() == [], "an owner that lives keeps its folder"
    os.kill(keeper, signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert folder in profiles.sweep()
    assert nothing_left(folder, [keeper, *pids])


def _owner(name: str) -> tuple[subprocess.Popen, Path, int, list[int]]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, name], stdout=subprocess.PIPE, text=True)
    folder, keeper, *pids = owner.stdout.readline().split()
    return owner, Path(folder), int(keeper), list(map(int, pids))


def test_a_missing_browser_is_told_with_the_command_that_gets_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing("chromium") == (
        "chromium: chromium, chromedriver not found. Debian, Ubuntu: sudo apt-get install chromium chromium-driver"
    )
    assert "apt-get install firefox-esr" in missing("firefox")
    monkeypatch.setattr(find, "MODULES", dict.fromkeys(NAMES, "no_such_module"))
    monkeypatch.setattr(find, "_where", lambda names: tmp_path)
    assert "pip install 'labbench[web]'" in missing("webkitgtk")
    with pytest.raises(ConfigError, match="did you mean 'firefox'"):
        open_browser("firefix")
