import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench import kernels, notebooks
from labbench.config import ConfigError
from labbench.manifest import read_manifest, sha256
from labbench.notebooks import NotebookError, Step, chain, json_value, run
from labbench.study import BROWSER_NOTEBOOKS, CLOSING_NOTEBOOKS, CLUSTER_NOTEBOOKS, NOTEBOOKS, TRAINING_NOTEBOOKS

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
MOST_CODE_LINES = 100


def make(path: Path, *cells: str, parameters: str = "x = 1\nname = 'a'") -> Path:
    head = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title"), head, *map(nbformat.v4.new_code_cell, cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, path)
    return path


def printed(output: Path) -> str:
    cells = nbformat.read(output, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))


def wait_for(condition: Any, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    yield
    kernels.stop()


# --- parameters -------------------------------------------------------------------------------------------------------


def test_an_unknown_parameter_is_refused_with_the_nearest_known_name(tmp_path):
    source = make(tmp_path / "n.ipynb", "x", parameters="store_path = 's'")
    with pytest.raises(ConfigError, match=r"'stor_path'; did you mean 'store_path'"):
        run(source, tmp_path / "out.ipynb", {"stor_path": "a"})
    assert not (tmp_path / "out.ipynb").exists()


def test_a_chain_checks_all_parameters_before_it_runs_anything(tmp_path):
    source = make(tmp_path / "n.ipynb", "x")
    steps = [Step(source, tmp_path / "1.ipynb"), Step(source, tmp_path / "2.ipynb", {"y": 1})]
    with pytest.raises(ConfigError, match="'y'"):
        chain(steps)
    assert not (tmp_path / "1.ipynb").exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        ((1, (2, None)), [1, [2, None]]),
        (pd.Timestamp("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05.000000006"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),
        ({"a": (np.int8(1),)}, {"a": [1]}),
    ],
)
def test_a_parameter_that_json_can_hold_without_loss_is_converted(value, expected):
    converted = json_value(value)
    assert converted == expected
    assert type(converted) is type(expected)


def test_a_relative_path_parameter_means_the_callers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert json_value(Path("data/s.h5")) == str(tmp_path / "data/s.h5")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, b"x", object(), {1: 2}, np.arange(3), pd.DataFrame(), np.float64("nan")],
)
def test_a_parameter_that_json_cannot_hold_is_refused_by_name(value):
    with pytest.raises(ConfigError, match="parameter p"):
        json_value(value, "parameter p")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_json_values_pass_unchanged(value):
    assert json_value(value) == value == json.loads(json.dumps(json_value(value)))


def test_parameters_arrive_in_the_notebook_with_their_types(tmp_path):
    source = make(
        tmp_path / "n.ipynb", "print(repr((a, b, c, d)))", parameters="a = None\nb = None\nc = None\nd = None"
    )
    run(source, tmp_path / "o.ipynb", {"a": False, "b": [1.5, None], "c": {"k": "{x}"}, "d": np.int64(2**40)}).check()
    assert printed(tmp_path / "o.ipynb").strip() == repr((False, [1.5, None], {"k": "{x}"}, 2**40))


# --- runs and manifests -----------------------------------------------------------------------------------------------


def test_a_manifest_tells_what_ran_and_what_came_of_it(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("1")
    source = make(tmp_path / "{odd} name.ipynb", "print(x)")
    result = run(source, tmp_path / "out" / "{odd} name.ipynb", {"x": 2}, inputs=[data]).check()
    manifest = read_manifest(result.output)
    assert manifest is not None
    assert (manifest["status"], manifest["parameters"], manifest["kernel"]) == ("ok", {"x": 2}, result.kernel)
    assert manifest["notebook_sha256"] == sha256(source)
    assert manifest["output_sha256"] == sha256(result.output)
    assert manifest["inputs"] == {str(data): sha256(data)}
    assert manifest["started"] < manifest["ended"]


def test_a_failing_cell_is_named_with_its_error_and_the_chain_stops(tmp_path):
    bad = make(tmp_path / "bad.ipynb", "y = 0", "x / y")
    good = make(tmp_path / "good.ipynb", "x")
    results = chain([Step(bad, tmp_path / "o1.ipynb", {"x": 2}), Step(good, tmp_path / "o2.ipynb")])
    (result,) = results
    assert (result.status, result.failed_cell, result.error) == ("failed", 3, "ZeroDivisionError: division by zero")
    manifest = read_manifest(result.output)
    assert manifest is not None
    assert manifest["failed_source"] == "x / y"
    assert not (tmp_path / "o2.ipynb").exists()
    with pytest.raises(NotebookError, match=r"bad.ipynb failed in cell 4: ZeroDivisionError"):
        result.check()


@pytest.mark.parametrize(
    ("cell", "timeout_s", "error"),
    [
        ("import time\ntime.sleep(600)", 1, "TimeoutError"),
        ("import os\nos.kill(os.getpid(), 9)", None, "DeadKernelError"),
    ],
)
@pytest.mark.parametrize("parameters", [{}, {"x": 2}])
def test_a_lost_kernel_is_a_failure_and_the_output_shows_it_below_the_cell(
    tmp_path, cell, timeout_s, error, parameters
):
    source = make(tmp_path / "n.ipynb", "x", cell, "x + 1")
    result = run(source, tmp_path / "o.ipynb", parameters, timeout_s=timeout_s)
    assert (result.status, result.failed_cell) == ("failed", 3)
    assert (result.error or "").startswith(error)
    lost = next(c for c in nbformat.read(result.output, as_version=4).cells if c.source == cell)
    assert lost.outputs[-1].ename == error


def test_an_input_that_does_not_exist_is_refused_by_name(tmp_path):
    source = make(tmp_path / "n.ipynb")
    with pytest.raises(NotebookError, match=r"n.ipynb needs .*nowhere.h5"):
        run(source, tmp_path / "o.ipynb", inputs=[tmp_path / "nowhere.h5"])
    with pytest.raises(NotebookError, match=r"no notebook .*other.ipynb"):
        run(tmp_path / "other.ipynb", tmp_path / "o.ipynb")


def test_a_chain_skips_a_step_until_something_it_depends_on_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "source_sha256", lambda: "as it was")
    data, made = tmp_path / "data.txt", tmp_path / "made.txt"
    data.write_text("1")
    source = make(tmp_path / "n.ipynb", f"open({str(made)!r}, 'w').close()")
    output = tmp_path / "o.ipynb"

    def skipped(parameters: dict[str, Any], **options: Any) -> bool:
        (result,) = chain([Step(source, output, parameters, inputs=[data], produces=[made])], **options)
        assert result.status == "ok"
        return result.skipped

    assert not skipped({"x": 1})
    assert skipped({"x": 1})
    assert not skipped({"x": 2}), "a parameter changed"
    data.write_text("2")
    assert not skipped({"x": 2}), "an input changed"
    output.write_text(output.read_text() + " ")
    assert not skipped({"x": 2}), "the output was touched"
    made.unlink()
    assert not skipped({"x": 2}), "a product is gone"
    make(source, f"open({str(made)!r}, 'w').close()", "x")
    assert not skipped({"x": 2}), "the notebook changed"
    monkeypatch.setattr(notebooks, "source_sha256", lambda: "edited")
    assert not skipped({"x": 2}), "labbench changed"
    assert skipped({"x": 2})
    assert not skipped({"x": 2}, rerun=True)


def test_a_failed_step_runs_again(tmp_path):
    flag = tmp_path / "flag"
    source = make(tmp_path / "n.ipynb", f"assert __import__('os').path.exists({str(flag)!r})")
    step = Step(source, tmp_path / "o.ipynb")
    assert [r.status for r in chain([step])] == ["failed"]
    flag.touch()
    assert [r.status for r in chain([step])] == ["ok"]


def test_a_damaged_manifest_is_no_manifest(tmp_path):
    (tmp_path / "o.manifest.json").write_text('{"version": 1, "stat')
    assert read_manifest(tmp_path / "o.ipynb") is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_output_is_not_written_anew_for_every_cell_and_complete_all_the_same(tmp_path, monkeypatch, fails):
    from papermill import engines

    written = []
    plain = engines.write_ipynb
    monkeypatch.setattr(engines, "write_ipynb", lambda nb, path: (written.append(path), plain(nb, path)))
    last = ["1 / 0"] if fails else []
    source = make(tmp_path / "n.ipynb", *[f"print('cell {i}')" for i in range(30)], *last)
    result = run(source, tmp_path / "o.ipynb")
    assert result.status == ("failed" if fails else "ok")
    assert len(written) <= 5  # papermill's own engine: 64
    assert [line for line in printed(tmp_path / "o.ipynb").split("\n") if line] == [f"cell {i}" for i in range(30)]


def test_a_progress_bar_leaves_one_line_and_a_figure_is_svg(tmp_path):
    source = make(
        tmp_path / "n.ipynb",
        "from tqdm.auto import tqdm\nfor i in tqdm(range(500), mininterval=0): pass",
        "import matplotlib.pyplot as plt\nline = plt.plot([1, 2])",
    )
    cells = {}
    for kind in ("fork", "fresh"):
        run(source, tmp_path / "o.ipynb", kernel=kind).check()
        *_, bar, figure = nbformat.read(tmp_path / "o.ipynb", as_version=4).cells
        assert [out.output_type for out in bar.outputs] == ["stream"]
        assert bar.outputs[0].text.strip().count("\n") == 0
        assert "500/500" in bar.outputs[0].text
        cells[kind] = figure.outputs
        assert [list(out.data) for out in figure.outputs] == [["image/svg+xml", "text/plain"]]
    size = [out["data"]["image/svg+xml"].count("\n") for kind in cells for out in cells[kind]]
    assert size[0] == size[1], "a forked kernel draws what an ordinary one draws"


def test_a_figure_of_a_forked_kernel_is_rendered_as_svg_and_on_no_canvas_besides(tmp_path):
    cells = (
        "from matplotlib.backends.backend_agg import FigureCanvasAgg\ndraws = []\n"
        "FigureCanvasAgg.draw = lambda canvas: draws.append(canvas)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "print(len(draws), 'draws')",
    )
    run(make(tmp_path / "n.ipynb", *cells), tmp_path / "out.ipynb", progress=False).check()
    outputs = [out for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for out in cell.get("outputs", [])]
    assert sum("image/svg+xml" in out.get("data", {}) for out in outputs) == 1
    assert "0 draws" in printed(tmp_path / "out.ipynb")


def test_progress_is_one_line_a_notebook_in_batch_and_none_when_not_wanted(tmp_path, capfd):
    source = make(tmp_path / "n.ipynb")
    run(source, tmp_path / "o.ipynb")
    lines = [line for line in capfd.readouterr().err.splitlines() if "ok" in line]
    assert len(lines) == 1
    assert lines[0].startswith("n  ok")
    run(source, tmp_path / "o.ipynb", progress=False)
    assert "ok" not in capfd.readouterr().err


SCRIPT = """
import sys
from labbench.notebooks import run
print("ready", flush=True)
run(sys.argv[1], sys.argv[2], kernel=sys.argv[3])
"""


def start_busy_run(tmp_path: Path, kind: str) -> tuple[subprocess.Popen[str], int]:
    """A process that runs a notebook which sleeps, and the pid of the notebook's kernel."""
    mark = tmp_path / "pid"
    cell = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    source = make(tmp_path / "n.ipynb", cell)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(source), str(tmp_path / "o.ipynb"), kind],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored, if a shell started the tests with `&`
    )
    assert wait_for(lambda: mark.exists() and mark.read_text() != "")
    return process, int(mark.read_text())


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("kind", ["fork", "fresh"])
def test_ctrl_c_leaves_the_manifest_interrupted_and_no_kernel(tmp_path, kind):
    process, kernel = start_busy_run(tmp_path, kind)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    manifest = read_manifest(tmp_path / "o.ipynb")
    assert manifest is not None
    assert (manifest["status"], manifest["failed_cell"]) == ("interrupted", 2)
    assert wait_for(lambda: gone(kernel))


# --- forked kernels ---------------------------------------------------------------------------------------------------


def test_no_forked_kernel_outlives_a_killed_owner(tmp_path):
    process, kernel = start_busy_run(tmp_path, "fork")
    server = psutil.Process(kernel).ppid()
    assert psutil.Process(server).ppid() == process.pid
    process.kill()
    process.communicate()
    assert wait_for(lambda: gone(kernel) and gone(server))
    manifest = read_manifest(tmp_path / "o.ipynb")
    assert manifest is not None
    assert manifest["status"] == "running", "nobody could say more; a chain runs it again"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ipykernel's own watch ends the kernel")
def test_no_forked_kernel_outlives_a_killed_server(tmp_path):
    process, kernel = start_busy_run(tmp_path, "fork")
    os.kill(psutil.Process(kernel).ppid(), signal.SIGKILL)
    process.communicate(timeout=60)
    assert gone(kernel)
    manifest = read_manifest(tmp_path / "o.ipynb")
    assert manifest is not None
    assert manifest["status"] == "failed"


def test_forked_kernels_are_apart_and_random(tmp_path):
    source = make(
        tmp_path / "n.ipynb",
        "import os, numpy as np, seaborn as sns, sys\nprint(os.getpid(), os.getppid(), np.random.rand())",
        "print('torch' in sys.modules, 'leak' in dir(np), os.getcwd())\nnp.leak = 1",
    )
    first, second = (tmp_path / name for name in ("1.ipynb", "2.ipynb"))
    assert {run(source, path).kernel for path in (first, second)} == {"fork"}
    (pid1, server1, random1), (pid2, server2, random2) = (printed(path).split()[:3] for path in (first, second))
    assert server1 == server2
    assert pid1 != pid2
    assert random1 != random2
    assert printed(second).split()[3:] == ["False", "False", str(tmp_path)]


def test_a_forked_kernel_can_be_interrupted_and_goes_on(tmp_path):
    import asyncio

    async def session() -> str:
        manager = kernels.ForkingKernelManager(kernel_name="python3")
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        client.execute("import time\nprint('asleep', flush=True)\ntime.sleep(600)", stop_on_error=False)
        while (await client.get_iopub_msg(timeout=60))[
            "msg_type"
        ] != "stream":  # else the kernel is not in the cell yet
            pass
        await manager.interrupt_kernel()
        interrupted = await client.get_shell_msg(timeout=60)
        client.execute("1 + 1")
        answer = await client.get_shell_msg(timeout=60)
        client.stop_channels()
        await manager.shutdown_kernel()
        return f"{interrupted['content'].get('ename')} {answer['content']['status']}"

    assert asyncio.run(session()) == "KeyboardInterrupt ok"


def test_where_forking_cannot_work_an_ordinary_kernel_runs_and_a_warning_says_why(tmp_path, monkeypatch):
    kernels.stop()
    monkeypatch.delattr(os, "fork")
    source = make(tmp_path / "n.ipynb", "print(x)")
    with pytest.warns(UserWarning, match="started afresh instead of forked.*cannot fork"):
        result = run(source, tmp_path / "o.ipynb")
    assert (result.status, result.kernel) == ("ok", "fresh")


def test_a_server_whose_imports_fail_falls_back_and_says_so(tmp_path, monkeypatch):
    kernels.stop()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "seaborn.py").write_text("raise ImportError('no seaborn today')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.warns(UserWarning, match="no seaborn today"):
        assert kernels.manager("fork")[1] == "fresh"


def test_a_file_in_the_working_folder_does_not_take_a_librarys_name(tmp_path, monkeypatch):
    kernels.stop()
    (tmp_path / "seaborn.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.manager("fork")[1] == "fork"


def test_importing_the_room_loads_neither_papermill_nor_jupyter():
    heavy = ("papermill", "jupyter_client", "numpy")
    code = f"import sys, labbench.notebooks; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- the notebooks folder ---------------------------------------------------------------------------------------------


def test_papermill_is_loaded_without_the_grammar_of_iris_which_stays_importable():
    code = (
        "import sys, importlib.util; from labbench import notebooks; papermill = notebooks._load_papermill();"
        "assert papermill.execute_notebook; assert 'lark' not in sys.modules;"
        "assert 'rfc3987_syntax' not in sys.modules; importlib.util.find_spec('rfc3987_syntax')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_folder_is_found_or_the_error_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("LABBENCH_NOTEBOOKS", str(tmp_path))
    with pytest.raises(NotebookError, match="set LABBENCH_NOTEBOOKS"):
        notebooks.folder()
    make(tmp_path / "n.ipynb")
    assert notebooks.folder() == tmp_path


def test_every_notebook_of_the_folder_is_known_in_the_order_of_names():
    groups = (NOTEBOOKS, TRAINING_NOTEBOOKS, CLOSING_NOTEBOOKS, CLUSTER_NOTEBOOKS, BROWSER_NOTEBOOKS)
    assert all(list(group) == sorted(group) for group in groups)
    assert sorted(name for group in groups for name in group) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.fixture(params=sorted(FOLDER.glob("*.ipynb")) or [None], ids=lambda path: path.stem if path else "none")
def chapter(request):
    assert request.param is not None, f"no notebooks in {FOLDER}"
    return nbformat.read(request.param, as_version=4)


def test_a_notebook_is_thin(chapter):
    import ast

    sources = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    lines = [line for source in sources for line in source.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    assert len(lines) <= MOST_CODE_LINES
    defined = [
        node.name
        for source in sources
        for node in ast.walk(ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%"))))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    assert defined == [], "it belongs in the package, with a test"


def test_a_notebook_has_one_parameters_cell_and_the_python_kernel(chapter):
    tagged = [cell for cell in chapter.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.cell_type for cell in tagged] == ["code"]
    assert chapter.metadata.kernelspec.name == "python3"


def test_a_notebook_is_kept_without_outputs(chapter):
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code if cell.execution_count is not None] == []
    assert [out for cell in code for out in cell.outputs] == []
    assert "papermill" not in chapter.metadata
    assert "widgets" not in chapter.metadata
    assert [cell for cell in chapter.cells if "papermill" in cell.metadata] == []
