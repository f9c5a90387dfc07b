"""The one interface of a runtime: say whether you are there, and make a module callable on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from labbench.cells import Mode, Platform, Precision, Workload
    from labbench.records import Profile
    from labbench.zoo.base import Model, Program


class Unsupported(Exception):
    """This cell cannot run on this platform; the message is the reason that the record keeps."""


class Prepared(ABC):
    """A module made ready on a device, with its inputs bound: calling it is one run, and nothing but the run."""

    parameter_bytes: int | None = None

    @abstractmethod
    def __call__(self) -> Any:
        """Run once on the bound inputs; returns the runtime's own output objects (may be asynchronous)."""

    @abstractmethod
    def outputs(self, result: Any) -> list[torch.Tensor]:
        """Convert what a call returned into fp32 tensors on the CPU, in the module's output order."""

    def synchronize(self) -> None:  # noqa: B027 - a CPU has nothing to wait for
        """Wait until the device has finished everything issued so far; nothing to do on a CPU."""


class Runtime(ABC):
    """Makes ``torch.nn.Module`` s callable on a device; one small file a runtime.

    Attributes
    ----------
    name : str
    packages : tuple of str
        Distributions whose versions identify the runtime.
    modes, precisions : tuple of str
        What it can run at all.
    lays_out : bool
        Whether the memory format of a platform means anything to it.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    modes: ClassVar[tuple[Mode, ...]] = ("inference",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    lays_out: ClassVar[bool] = False

    @abstractmethod
    def available(self, device: str = "cpu") -> str | None:
        """``None`` if the runtime can use ``device`` here, else the reason and the way out."""

    @abstractmethod
    def prepare(
        self,
        module: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
        platform: Platform,
        precision: Precision,
    ) -> Prepared:
        """Compile or convert ``module`` for ``platform``.

        Raises
        ------
        Unsupported
            If the runtime cannot express the module, or would run it anywhere but on ``platform.device``.
        """

    def profile(
        self, prepared: Prepared, rebuilt: Callable[[], Program], platform: Platform, precision: Precision
    ) -> Profile | None:
        """Where the time of a call goes, by the runtime's own profiler; None if it has none.

        Parameters
        ----------
        prepared : Prepared
            What was timed. It is needed no more.
        rebuilt : callable
            Gives the module and its inputs once more, for runtimes that must prepare anew to profile.
        """
        return None

    def prepare_step(self, model: Model, platform: Platform, workload: Workload) -> Prepared:
        """Make one training step (:class:`labbench.runtimes.step.TrainingStep`) callable; only for runtimes with that mode."""
        raise Unsupported(f"runtime {self.name!r} does not train")
