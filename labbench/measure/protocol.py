"""How a cell is measured: the :class:`Protocol`, its presets, and the reasons for their numbers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from labbench.cells import Frozen, content_id

MIN_SAMPLES = 11  # the order-statistic 95 % interval of a median wants at least this many (binomial)


class Protocol(Frozen):
    """How a cell is measured.

    Sampling of one process goes on, round by round, until the relative half-width of the median's 95 % interval is
    at most ``target_ci`` *and* there are ``min_samples`` *and* ``min_time_s`` were spent sampling; or until
    ``max_time_s`` were spent, which the record says.
    """

    processes: int = Field(2, ge=1, description="separate worker processes per cell")
    target_ci: float = Field(0.02, gt=0, description="relative half-width of the median's 95 % interval to reach")
    min_samples: int = Field(30, ge=MIN_SAMPLES, description="samples per process and series")
    min_time_s: float = Field(1.0, ge=0, description="seconds of sampling per process and series")
    max_time_s: float = Field(10.0, gt=0, description="budget of sampling per process and series, seconds")
    round_s: float = Field(0.02, gt=0, description="one interleaved round samples a series about this long, seconds")
    max_samples: int = Field(10_000, ge=MIN_SAMPLES, description="samples kept per process and series at most")
    timer_overhead: float = Field(1e-4, gt=0, description="a block is at least timer cost / this long")
    warmup_min_calls: int = Field(3, ge=1)
    warmup_max_s: float = Field(3.0, gt=0, description="warm-up ends here even if times still fall; the record says so")
    prepare_timeout_s: float = Field(600.0, gt=0, description="for loading and for preparing")
    call_timeout_s: float = Field(120.0, gt=0, description="for any single step after preparation")
    memory_limit_bytes: int | None = Field(None, description="per worker; null: 80 % of what is available")
    group_size: int = Field(4, ge=1, description="cells whose rounds are interleaved; their workers live together")
    prepare_concurrency: int = Field(1, ge=1, description="workers that may load and compile at the same time")
    start: Literal["auto", "fork", "fresh"] = Field("auto", description="fork workers from a preloaded server, or not")
    keep_heap: bool = Field(
        True, description="glibc keeps freed memory: page faults by luck of a process are not taken for speed"
    )
    seed: int = Field(0, ge=0, description="of weights and inputs")
    profile: bool = Field(False, description="profile a few calls too, after everything else: where their time goes")

    @property
    def id(self) -> str:
        """Content-derived id, 16 hex digits; that of a protocol without a profile is as it was before there were any."""
        return content_id(self.model_dump(exclude=None if self.profile else {"profile"}))


# Quick: a look in minutes. One process, and preparation of several workers overlaps, so prepare_s is an upper bound.
QUICK: dict[str, Any] = {
    "processes": 1,
    "target_ci": 0.05,
    "min_samples": MIN_SAMPLES,
    "min_time_s": 0.3,
    "max_time_s": 1.5,
    "warmup_max_s": 1.0,
    "prepare_concurrency": 2,
}
THOROUGH: dict[str, Any] = {
    "processes": 5,
    "target_ci": 0.01,
    "min_samples": 100,
    "min_time_s": 3.0,
    "max_time_s": 60.0,
}
PRESETS: dict[str, dict[str, Any]] = {"quick": QUICK, "standard": {}, "thorough": THOROUGH}


def preset(name: str, **changes: Any) -> Protocol:
    """A named protocol, with single fields changed.

    Raises
    ------
    ConfigError
        For an unknown preset or field, naming the nearest known one.
    """
    from labbench.config import parse, unknown_name

    if name not in PRESETS:
        raise unknown_name("protocol", name, PRESETS)
    return parse(Protocol, {**PRESETS[name], **changes}, f"protocol {name}")
