"""A person opens a notebook in JupyterLab and runs all cells: the real server, a real browser."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import made
import nbformat
import psutil
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from labbench.store import Store
from tests.browser import chromium, look

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
OPENED = ("02_compare.ipynb",)
STARTED_S = 120  # two cores that are busy with other tests
RUN_S = 600

RUN_ALL = """
const done = arguments[arguments.length - 1];
(async () => {
  const app = window.jupyterapp;
  await app.restored;
  const panel = await (async () => {
    for (;;) {
      const panel = app.shell.currentWidget;
      if (panel && panel.context && panel.sessionContext) return panel;
      await new Promise((next) => setTimeout(next, 100));
    }
  })();
  await panel.context.ready;
  await panel.sessionContext.ready;
  await app.commands.execute("notebook:run-all-cells");
  const cells = panel.content.model.sharedModel.cells.map((cell) => cell.toJSON());
  return { kernel: panel.sessionContext.kernelDisplayName, cells };
})().then((value) => done(JSON.stringify(value)), (error) => done(JSON.stringify({ error: String(error) })));
"""


class Lab(NamedTuple):
    """A running JupyterLab, and a browser to look at it."""

    folder: Path
    url: str
    token: str
    driver: Chrome
    wait: WebDriverWait


@contextmanager
def jupyterlab(folder: Path, state: Path) -> Iterator[str]:
    """A server on a free port with settings of its own; yields its address with the token, ends with its kernels."""
    folders = {f"JUPYTER_{name}_DIR": str(state / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {
        **os.environ,
        **folders,
        "IPYTHONDIR": str(state / "ipython"),
        "JUPYTER_TOKEN": secrets.token_hex(16),
    }
    settings = state / "config" / "lab" / "user-settings"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.user_settings_dir={settings}", f"--LabApp.workspaces_dir={state / 'workspaces'}"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = state / "server.log"
    state.mkdir(exist_ok=True)
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        yield _address(server, state / "runtime", log)
    finally:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.terminate()  # shuts its kernels down
        psutil.wait_procs(family, timeout=30)
        for process in family:
            if process.is_running():
                process.kill()
        server.wait(timeout=30)
        assert psutil.wait_procs(family, timeout=30)[1] == [], "no kernel is left"


def _address(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait until the server has written where it listens, and answers."""
    import urllib.error
    import urllib.request

    def listening(_: object) -> str | bool:
        assert server.poll() is None, log.read_text()
        for path in runtime.glob("jpserver-*.json"):
            try:
                about = json.loads(path.read_text())
                with urllib.request.urlopen(f"{about['url']}api?token={about['token']}", timeout=10):
                    return f"{about['url']}|{about['token']}"
            except (json.JSONDecodeError, urllib.error.URLError):  # half written; not yet listening
                return False
        return False

    return str(WebDriverWait(None, STARTED_S).until(listening, log.read_text()))


def run_all(lab: Lab, name: str) -> dict[str, Any]:
    """Open a notebook, run all its cells, and read the cells as JupyterLab then holds them."""
    lab.driver.get(f"{lab.url}doc/tree/{name}?token={lab.token}&reset")
    lab.wait.until(
        lambda _: lab.driver.execute_script("return window.jupyterapp !== undefined"), "JupyterLab did not start"
    )
    result = json.loads(lab.driver.execute_async_script(RUN_ALL))
    assert "error" not in result, result
    return result


def problems(cells: list[dict[str, Any]]) -> list[str]:
    """What went wrong: cells with an error, or that never ran."""
    found = []
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        errors = [f"{out['ename']}: {out['evalue']}" for out in cell["outputs"] if out["output_type"] == "error"]
        if errors:
            found.append(f"cell {number}: {errors[0]}")
        elif cell["execution_count"] is None:
            found.append(f"cell {number} did not run")
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for all tests, on a copy of the notebooks beside a small store, as in a checkout after a study."""
    study = tmp_path_factory.mktemp("study")
    folder = shutil.copytree(NOTEBOOKS, study / "notebooks")
    (study / "data").mkdir()
    with Store(study / "data" / "study.h5", writable=True) as store:
        store.extend(made.study(), [made.ENVIRONMENT])
    with jupyterlab(folder, study / "state") as address, chromium(study / "profile") as driver:
        look(driver, 1280)
        driver.set_script_timeout(RUN_S)
        yield Lab(folder, *address.split("|"), driver, WebDriverWait(driver, STARTED_S))


def written(lab: Lab, name: str, *sources: str) -> str:
    """A notebook of these cells in the server's folder; its name."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / name)
    return name


@pytest.mark.parametrize("name", OPENED)
def test_a_notebook_runs_in_jupyterlab_without_error(lab, name):
    assert (lab.folder / name).is_file(), f"{name} is missing"
    result = run_all(lab, name)
    assert problems(result["cells"]) == []
    assert any(cell["cell_type"] == "code" for cell in result["cells"])


def test_an_error_and_a_cell_that_did_not_run_would_be_seen(lab):
    result = run_all(lab, written(lab, "bad.ipynb", "1 + 1", "1 / 0", "2"))
    assert problems(result["cells"]) == ["cell 2: ZeroDivisionError: division by zero", "cell 3 did not run"]


TEXTS = "return [...document.querySelectorAll('table.labbench tbody tr')].map(r => r.cells[arguments[0]].innerText)"
HEADS = "return [...document.querySelectorAll('table.labbench thead th')].map(h => h.innerText.trim())"


def test_in_the_explorer_a_choice_redraws_and_a_header_sorts_by_mouse_and_keyboard(lab):
    slow_first = [
        made.record("bert-tiny", "eager", 0.2),
        made.record("bert-tiny", "compile", 0.03),
        made.record("vit-tiny", "eager", 1.5),
    ]
    with Store(lab.folder / "s.h5", writable=True) as store:
        store.extend(slow_first, [made.ENVIRONMENT])
    result = run_all(lab, written(lab, "n.ipynb", "import labbench\nlabbench.explore('s.h5')"))
    assert problems(result["cells"]) == []
    driver, headers = lab.driver, "table.labbench thead button.sort"
    lab.wait.until(lambda _: driver.find_elements("css selector", headers), "the script of the table ran")
    at = driver.execute_script(HEADS).index("latency (ms)")
    assert driver.execute_script(TEXTS, at) == ["200", "30", "1500"]
    driver.find_elements("css selector", headers)[at].click()
    assert driver.execute_script(TEXTS, at) == ["30", "200", "1500"]
    driver.find_elements("css selector", headers)[at].send_keys(Keys.ENTER)
    assert driver.execute_script(TEXTS, at) == ["1500", "200", "30"]
    before = driver.find_element("css selector", ".jp-OutputArea img").get_attribute("src")
    models = Select(driver.find_element("css selector", "select[multiple]"))
    models.deselect_by_visible_text("bert-tiny")
    lab.wait.until(lambda _: driver.execute_script(TEXTS, at) == ["1500"], "the choice did not arrive")
    assert driver.find_element("css selector", ".jp-OutputArea img").get_attribute("src") != before
