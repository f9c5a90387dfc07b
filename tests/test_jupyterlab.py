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
from typing import Any

import nbformat
import psutil
import pytest
from selenium.webdriver.support.ui import WebDriverWait

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


def run_all(folder: Path, name: str, state: Path) -> dict[str, Any]:
    """Open a notebook, run all its cells, and read the cells as JupyterLab then holds them."""
    with jupyterlab(folder, state) as address, chromium(state / "profile") as driver:
        url, token = address.split("|")
        look(driver, 1280)
        driver.set_script_timeout(RUN_S)
        driver.get(f"{url}doc/tree/{name}?token={token}&reset")
        WebDriverWait(driver, STARTED_S).until(
            lambda _: driver.execute_script("return window.jupyterapp !== undefined"), "JupyterLab did not start"
        )
        result = json.loads(driver.execute_async_script(RUN_ALL))
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebooks beside a small measured store, as in a checkout after a study."""
    study = tmp_path_factory.mktemp("study")
    shutil.copytree(NOTEBOOKS, study / "notebooks")
    grid = ["--model", "bert-tiny", "vit-tiny", "--runtime", "eager", "onnxruntime", "--batch-size", "1"]
    store = ["--protocol", "quick", "--store", str(study / "data" / "study.h5")]
    subprocess.run([sys.executable, "-m", "labbench.cli", "run", *grid, *store], check=True, timeout=RUN_S)
    return study / "notebooks"


@pytest.mark.parametrize("name", OPENED)
def test_a_notebook_runs_in_jupyterlab_without_error(folder, tmp_path, name):
    assert (folder / name).is_file(), f"{name} is missing"
    result = run_all(folder, name, tmp_path / "state")
    assert problems(result["cells"]) == []
    assert any(cell["cell_type"] == "code" for cell in result["cells"])


def test_an_error_and_a_cell_that_did_not_run_would_be_seen(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "1 / 0", "2")]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}),
        folder / "bad.ipynb",
    )
    result = run_all(folder, "bad.ipynb", tmp_path / "state")
    assert problems(result["cells"]) == ["cell 2: ZeroDivisionError: division by zero", "cell 3 did not run"]
