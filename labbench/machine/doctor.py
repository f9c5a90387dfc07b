"""``labbench doctor``: what this machine is, what it can run, what is missing and the command to get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labbench.machine.detect import available_memory_bytes, detect, machine_id, physical_cores, software

GIB = 2**30


@dataclass(frozen=True)
class Report:
    """Result of :func:`examine`; ``str()`` is for people, :meth:`to_dict` for scripts."""

    machine: dict[str, Any]
    ceilings: dict[str, Any]
    software: dict[str, str]
    runtimes: dict[str, dict[str, str | None]]
    energy: dict[str, str | None]
    datasheets: dict[str, Any]
    models: list[str]
    browsers: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in SI units."""
        return dict(self.__dict__)

    def __str__(self) -> str:
        return "\n".join([*self._machine(), *self._ceilings(), *self._runtimes(), *self._rest()])

    def _machine(self) -> list[str]:
        one, cpu = self.machine, self.machine["cpu"]
        caches = ", ".join(
            f"{key[:2].upper()} {_cache_size(size)}" for key, size in cpu.items() if key.endswith("_bytes")
        )
        limit = one["memory_limit_bytes"]
        lines = [
            f"Machine {one['id']}",
            f"  processor     {cpu['name']}: {cpu['physical_cores']} cores ({cpu['logical_cores']} logical), "
            f"{physical_cores()} used by default",
            f"  features      {', '.join(cpu['flags']) or 'none that matter'}; {caches}",
            f"  memory        {one['memory_bytes'] / GIB:.1f} GiB, {available_memory_bytes() / GIB:.1f} available"
            + (f", container limit {limit / GIB:.1f}" if limit else ""),
            f"  system        {one['system']} {one['kernel']}{', virtual machine' if one['virtualized'] else ''}",
        ]
        for accelerator in one["accelerators"]:
            sheet = self.datasheets.get(accelerator.get("name", ""))
            known = f"; datasheet: {sheet['bandwidth_bytes_s'] / 1e9:.0f} GB/s" if sheet else ""
            lines.append(f"  accelerator   {accelerator['device']}: {accelerator.get('name', 'unnamed')}{known}")
        if one["accelerators"]:
            return lines
        unused = ", ".join(one["pci_accelerators"])
        way_out = f"; on the bus: {unused}. Install a torch built for it: make study TORCH=own" if unused else ""
        return [*lines, f"  accelerator   none that torch sees{way_out}"]

    def _ceilings(self) -> list[str]:
        lines = []
        for device, found in self.ceilings.items():
            rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in found["gemm_flops"].items())
            lines += [
                f"Ceilings of {device}, measured with {found['threads']} threads",
                f"  matrix product  {rates}",
                f"  memory          {found['bandwidth_bytes_s'] / 1e9:.1f} GB/s (copy)",
                f"  dispatch        {found['dispatch_s'] * 1e6:.2f} µs per eager operator",
            ]
            if not found["quiet"]:
                reasons = "; ".join(found["disturbed_by"])
                lines.append(
                    f"  not to be trusted: {reasons}. Measure again on a quiet machine: labbench doctor --measure"
                )
        return lines

    def _runtimes(self) -> list[str]:
        lines = ["Runtimes"]
        for name, devices in self.runtimes.items():
            for device, reason in devices.items():
                lines.append(f"  {name + ' on ' + device:<22} {'ready' if reason is None else 'missing: ' + reason}")
        return lines

    def _rest(self) -> list[str]:
        energy = [f"  {device:<6} {reason or 'counter found'}" for device, reason in self.energy.items()]
        versions = ", ".join(f"{name} {version}" for name, version in self.software.items())
        here = ", ".join(name for name, reason in self.browsers.items() if reason is None) or "none"
        browsers = ["Browsers", f"  {here} (more: labbench web doctor)"]
        return ["Energy", *energy, *browsers, "Software", f"  {versions}", "Zoo", f"  {', '.join(self.models)}"]


def _cache_size(size: int) -> str:
    return f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB"


def examine(*, measure: bool = False) -> Report:
    """Look at everything; measures the ceilings if there are none yet, or if ``measure``."""
    from dataclasses import asdict

    from labbench import runtimes, zoo
    from labbench.machine.ceilings import measured
    from labbench.machine.datasheet import datasheet
    from labbench.measure.energy import meter
    from labbench.web.browsers.find import NAMES, missing

    fingerprint = detect(with_accelerators=True)
    devices = ["cpu", *(one["device"] for one in fingerprint["accelerators"])]
    sheets = {one["name"]: datasheet(one["name"]) for one in fingerprint["accelerators"] if "name" in one}
    return Report(
        machine={"id": machine_id(detect()), **fingerprint},
        ceilings={device: measured(device, refresh=measure) for device in devices},
        software=software(),
        runtimes={name: {d: runtimes.get(name).available(d) for d in devices} for name in runtimes.names()},
        energy={device: meter(device).reason for device in devices},
        datasheets={name: asdict(sheet) for name, sheet in sheets.items() if sheet},
        models=zoo.models(),
        browsers={name: missing(name) for name in NAMES},
    )
