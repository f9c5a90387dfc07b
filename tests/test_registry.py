import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import nbformat
import pytest
import torch

from labbench import notebooks, runtimes, zoo
from labbench.campaign import Campaign
from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.measure import group
from labbench.measure.protocol import preset
from labbench.registry import Registry, loading
from labbench.store import Store

MODEL = """
import torch
from labbench import Campaign, Grid, runtimes, zoo
from labbench.measure.protocol import preset
from labbench.runtimes.eager import Eager

WIDTH = 16

def activation(x):
    return x.clamp(min=0)

class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
    def forward(self, x):
        return activation(self.layer(x))

class Own(Eager):
    name = "own"
    def transform(self, call):
        return lambda *inputs: call(*inputs)

zoo.register_module("mine", Mine, lambda batch: (torch.randn(batch, WIDTH),))
zoo.register_module("mlp", lambda: torch.nn.Linear(32, 32), lambda batch: (torch.randn(batch, 32),))
runtimes.register(Own())
"""
RUN = """
grid = Grid(axes={{"model": ["mine", "mlp"], "runtime": {runtimes!r}, "threads": 1}})
protocol = preset("quick", min_time_s=0.02, max_time_s=0.1, round_s=0.01, warmup_max_s=0.1, start={start!r})
print(Campaign(grid, {store!r}, protocol).run(progress=False))
"""


def run(path: Path, *parts: str) -> str:
    """Run a script as ``__main__``; returns what it printed."""
    path.write_text("\n".join(parts))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("start", ["auto", pytest.param("fresh", marks=pytest.mark.full)])
def test_what_a_script_registers_is_known_in_its_workers_and_measured_anew_only_if_its_code_changed(tmp_path, start):
    settings = {"runtimes": ["eager", "onnxruntime", "own"], "start": start, "store": str(tmp_path / "s.h5")}
    code = RUN.format(**settings)
    assert "6 ok; 0 kept" in run(tmp_path / "script.py", MODEL, code)
    wider = "# moved by two lines\n\n" + MODEL.replace("WIDTH = 16", "WIDTH = 24")  # which only one of the models uses
    assert "3 ok; 3 kept" in run(tmp_path / "script.py", wider, code)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["fork", pytest.param("fresh", marks=pytest.mark.full)])
def test_what_a_notebook_cell_registers_is_known_in_its_workers(tmp_path, kernel):
    settings = {"runtimes": ["eager", "own"], "start": "auto", "store": str(tmp_path / "s.h5")}
    cells = [nbformat.v4.new_code_cell(source) for source in (MODEL, RUN.format(**settings))]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), tmp_path / "n.ipynb")
    notebooks.run(tmp_path / "n.ipynb", tmp_path / "out.ipynb", kernel=kernel, progress=False).check()
    assert set(Store(tmp_path / "s.h5").frame()["status"]) == {"ok"}
    assert len(Store(tmp_path / "s.h5")) == 4


@pytest.fixture
def registered():
    """Names to register models and a runtime under, forgotten afterwards."""
    names = ("mine", "mlp", "own")
    yield names
    for name in names:
        zoo._REGISTERED.pop(name, None)
        runtimes._REGISTERED.pop(name, None)


def versions(code: str) -> dict[str, str | None]:
    """Of what this code registers, run as if it were typed."""
    exec(compile(code, "<typed>", "exec"), {"__name__": "__main__"})
    return {"mine": zoo.version("mine"), "mlp": zoo.version("mlp"), "own": runtimes.version("own")}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("class Mine", "# moved\n\nclass Mine", set()),
        ("WIDTH = 16", "WIDTH = 8", {"mine"}),
        ("clamp(min=0)", "clamp(min=1)", {"mine"}),
        ("        self.layer = ", "        self.more = torch.nn.Linear(2, 2)\n        self.layer = ", {"mine"}),
        ("Linear(32, 32)", "Linear(32, 64)", {"mlp"}),
        ("call(*inputs)", "call(*inputs[::1])", {"own"}),
    ],
    ids=["nothing", "constant", "function", "class", "lambda", "runtime"],
)
def test_a_version_is_that_of_the_code_wherever_it_stands(registered, old, new, changed):
    assert old in MODEL
    first, second = versions(MODEL), versions(MODEL.replace(old, new))
    assert {name for name in registered if first[name] != second[name]} == changed


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 8),)


def test_captured_weights_count_by_their_shapes(registered):
    found = []
    for width in (8, 8, 9):
        captured = torch.nn.Linear(8, width)  # random weights
        zoo.register_module("mine", lambda: captured, inputs)  # noqa: B023 - one after the other
        found.append(zoo.version("mine"))
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_pickled_is_refused_before_anything_runs(tmp_path, registered):
    lock = threading.Lock()

    def module() -> torch.nn.Module:
        with lock:
            return torch.nn.Linear(8, 8)

    zoo.register_module("mine", module, inputs)
    with pytest.raises(ConfigError, match=r"model 'mine' cannot .*pickle '_thread.lock'.*plugin file"):
        Campaign([Cell.of(model="bert-tiny"), Cell.of(model="mine")], tmp_path / "s.h5")
    assert not list(tmp_path.iterdir())
    Campaign([Cell.of(model="bert-tiny")], tmp_path / "s.h5")  # only what the cells use matters


def test_a_worker_gets_its_own_family_and_nothing_else(registered):
    for name in ("mine", "mlp"):
        zoo.register_module(name, lambda: torch.nn.Linear(8, 8), inputs)
    job = group.job_of(Cell.of(model="mine"), preset("quick"), 1, ())
    assert job.family is not None
    assert pickle.loads(job.family).name == "mine"
    assert b"mlp" not in job.family
    assert job.runtime is None
    assert group.job_of(Cell.of(model="bert-tiny"), preset("quick"), 1, ()).family is None


def test_what_a_plugin_registers_is_not_sent_and_has_the_plugins_version():
    registry: Registry[int] = Registry("model")
    with loading("mine 1.0"):
        registry["a"] = 1
    registry["b"] = 2
    assert (registry.pack("a"), registry.version("a")) == (None, "mine 1.0")
    assert pickle.loads(registry.pack("b") or b"") == 2
    registry["a"] = 3  # by a call, later: now only this process knows it
    assert pickle.loads(registry.pack("a") or b"") == 3
    assert registry.version("c") is None


def test_a_changed_plugin_file_is_another_version(tmp_path, registered, monkeypatch):
    monkeypatch.setattr(zoo, "_PLUGINS", [])
    code = """
        import torch
        from labbench import zoo
        zoo.register_module("mine", lambda: torch.nn.Linear(8, 8), lambda batch: (torch.randn(batch, 8),))
        """
    versions = []
    for folder, text in (("one", code), ("two", code), ("three", code.replace("8, 8", "8, 9"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(textwrap.dedent(text))
        zoo.load_plugins([str(tmp_path / folder / "mine.py")])
        versions.append(zoo.version("mine"))
    assert versions[0] == versions[1] != versions[2]
    assert zoo.pack("mine") is None


def test_built_in_models_and_runtimes_need_no_cloudpickle():
    code = """
        import sys
        from labbench import Campaign, Cell
        Campaign([Cell.of(model="bert-tiny")], "unused.h5")
        print("cloudpickle" in sys.modules)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
