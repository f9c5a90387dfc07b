"""``torch.compile`` with the inductor backend; preparation includes the compilation."""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, Any, ClassVar

from labbench.runtimes.eager import Eager

if TYPE_CHECKING:
    import torch

    from labbench.cells import Platform, Precision, Workload
    from labbench.runtimes.base import Prepared
    from labbench.zoo.base import Model


class Compile(Eager):
    """Inductor. Compiles into an empty cache and in this process, so that ``prepare_s`` is the whole, true cost."""

    name = "compile"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "bf16", "fp16")

    def available(self, device: str = "cpu") -> str | None:
        """Needs a C++ compiler on the CPU, besides the device."""
        if (reason := super().available(device)) is not None:
            return reason
        if device == "cpu" and not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
            return "torch.compile needs a C++ compiler for the CPU, and there is none: apt-get install g++"
        return None

    def transform(self, call: Any) -> Any:
        """Compile for exactly these shapes."""
        import torch

        return torch.compile(call, dynamic=False)

    def prepare(
        self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], platform: Platform, precision: Precision
    ) -> Prepared:
        """Compile, by running once."""
        import torch

        with _EmptyCache(), torch.inference_mode():
            prepared = super().prepare(module, inputs, platform, precision)
            prepared()
            prepared.synchronize()
        return prepared

    def prepare_step(self, model: Model, platform: Platform, workload: Workload) -> Prepared:
        """Compile forward pass, loss and backward pass, by running one step."""
        with _EmptyCache():
            prepared = super().prepare_step(model, platform, workload)
            prepared()
            prepared.synchronize()
        return prepared


class _EmptyCache:
    """Inductor with a cache folder of its own and no helper processes, for as long as it compiles."""

    def __enter__(self) -> None:
        import os

        import torch._inductor.config as inductor

        self._folder = tempfile.mkdtemp(prefix="labbench-inductor-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._folder
        inductor.compile_threads = 1
        inductor.fx_graph_cache = False

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
