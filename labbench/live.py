"""Which tensors live at the same time: the most bytes of one call, by cause. Real tensors or fake ones, which take no memory.

Every storage is followed from the operator that makes it to the moment when nobody refers to it any more. What an
allocator takes for itself is not seen; what a kernel does is told by who knows.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from labbench.runtimes.step import TrainingStep

WORKSPACE = "workspace"  # until something is known of a tensor


class Live:
    """Storages alive now, and when they were most.

    Attributes
    ----------
    peak_bytes : float
    peak_by_cause : dict
        Bytes at that time, by cause.
    peak_cpu_bytes : float
        The most with what kernels of a CPU borrow while they run.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0.0
        self.peak_by_cause: dict[str, float] = {}
        self.peak_cpu_bytes = 0.0
        self._now: dict[str, float] = defaultdict(float)
        self._cause: dict[int, str] = {}

    def see(self, tensor: torch.Tensor, cause: str = WORKSPACE) -> None:
        """Follow a tensor's storage from now on, or tell what a followed one is for."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._cause.get(key)
        if known is None:
            weakref.finalize(storage, self._gone, key, size)
        elif known == WORKSPACE:
            self._now[known] -= size
        else:
            return
        self._cause[key] = cause
        self._now[cause] += size
        total = sum(self._now.values())
        if total > self.peak_bytes:
            self.peak_bytes, self.peak_by_cause = total, dict(self._now)
            self.peak_cpu_bytes = max(self.peak_cpu_bytes, total)

    def borrow(self, size: float) -> None:
        """A kernel takes so many bytes beside the tensors that live when it ends."""
        self.peak_cpu_bytes = max(self.peak_cpu_bytes, sum(self._now.values()) + size)

    def _gone(self, key: int, size: int) -> None:
        self._now[self._cause.pop(key)] -= size

    def see_module(self, module: torch.nn.Module) -> None:
        """Follow parameters and buffers."""
        for tensor in (*module.parameters(), *module.buffers()):
            self.see(tensor, "parameters")

    @contextlib.contextmanager
    def training(self, step: TrainingStep) -> Iterator[None]:
        """Tell activations, gradients and optimizer state apart while a step runs that has run before."""
        import torch
        from torch.utils._pytree import tree_leaves

        for tensor in tree_leaves(list(step.optimizer.state.values())):
            if torch.is_tensor(tensor):
                self.see(tensor, "optimizer")
        for parameter in step.trained:
            if parameter.grad is not None:
                self.see(parameter.grad, "gradients")

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            self.see(tensor, "activations")
            return tensor

        def accumulated(parameter: Any) -> None:
            self.see(parameter.grad, "gradients")

        handles = [parameter.register_post_accumulate_grad_hook(accumulated) for parameter in step.trained]
        try:
            with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
                yield
        finally:
            for handle in handles:
                handle.remove()
