"""Live audio through a model in a browser: what is asked of the page, and the record that its answer becomes.

::

    Live ──ask()──> page/live/live.js ──answer──> record(): end to end, inference, drop-outs

The end to end of a hop counts from its first sample to its result. It is the hop itself (which has to be filled), buffering
(until the worker takes it up: the audio thread's bursts, a worker that is still busy) and inference (features and model), and the
way to the page; all are taken by different clocks in different threads, so that the sum is a test of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from labbench.cells import Cell, Frozen
from labbench.config import ConfigError
from labbench.records import Record, Series
from labbench.web import families, labels
from labbench.web.result import phases

if TYPE_CHECKING:
    from labbench.web.export import Exported
    from labbench.web.server import Server

PAGE = "live.html"
START_S = 120.0  # for a browser to load the model and end its warm-up, above the length of a run
LOADED = {"none": "", "one": ", one core loaded", "all": ", all cores loaded"}  # loads, as they are told
Load = Literal["none", "one", "all"]


class Live(Frozen):
    """One live run.

    Attributes
    ----------
    browser, model, provider : str
    threads : int
        Of wasm.
    hop_s : float
        A result is due each time so much audio has come.
    window_s : float or None
        What the model hears, up to that moment; None: the model's own chunk length, but at most :data:`USUAL_WINDOW_S`.
    seconds : float
        How long.
    source : str
        ``signal``, made in the page; ``microphone``; or ``file``, which only a person at the page can choose.
    load : str
        Cores that are kept busy meanwhile: ``none``, ``one`` or ``all``.
    slack_s : float
        Audio that may wait; what would have to wait longer is dropped.
    slowdown : float or None
        Have each hop take at least so many times its own length: to test that drop-outs are seen.
    """

    browser: str
    model: str
    provider: str = "wasm"
    threads: int = Field(1, ge=1)
    hop_s: float = Field(0.1, gt=0)
    window_s: float | None = Field(None, gt=0)
    seconds: float = Field(60.0, gt=0)
    source: Literal["signal", "microphone", "file"] = "signal"
    load: Load = "none"
    slack_s: float = Field(1.0, gt=0)
    slowdown: float | None = Field(None, gt=0)

    @field_validator("model")
    @classmethod
    def _hears(cls, name: str) -> str:
        return hearing(name).name

    @property
    def window(self) -> float:
        """Seconds that the model hears."""
        return self.window_s or min(families.find(self.model).audio_s, USUAL_WINDOW_S)

    @property
    def cell(self) -> Cell:
        """Its place among all cells; hop and load are in the task."""
        slowed = f", slowed {self.slowdown:g} times" if self.slowdown else ""
        task = f"live, hop {1e3 * self.hop_s:g} ms{LOADED[self.load]}{slowed}"
        return Cell.of(
            model=self.model,
            task=task,
            audio_s=self.window,
            device=self.browser,
            runtime=self.provider,
            threads=self.threads if self.provider == "wasm" else None,
        )


USUAL_WINDOW_S = 1.0  # of a model that takes any length


def live_models() -> list[str]:
    """Models that hear audio, smallest first within a family: all but decoders."""
    return [name for name in families.models() if families.find(name).unit == "audio_s"]


def hearing(name: str) -> families.WebModel:
    """A model that hears audio; raises ConfigError for another, or an unknown one."""
    model = families.find(name)
    if model.unit != "audio_s":
        raise ConfigError(f"{name} hears no audio, so it cannot run live; one of {', '.join(live_models())} can")
    return model


def ask(wish: Live, exported: Exported, server: Server) -> dict[str, Any]:
    """What ``labbench.live`` in the page wants to know; puts the model on the server."""
    rate = exported.model.rate
    hop, window = round(wish.hop_s * rate), heard(exported)
    return {
        "model": session(wish.model, exported, server, wish.provider, wish.threads),
        "rate": rate,
        "hop": hop,
        "window": window,
        "seconds": wish.seconds,
        "source": wish.source,
        "slack_s": wish.slack_s,
        "slowdown": wish.slowdown,
    }


def heard(exported: Exported) -> int:
    """Samples that the model hears at a time: as many as its features want (one frame more than hops fit, if they are centred)."""
    features = exported.model.features
    if not features or not features.get("center") or features.get("drop_last"):
        return round(exported.audio_s * exported.model.rate)
    shape = next(iter(exported.inputs.values())).shape
    frames = shape[-2] if features.get("time_first") else shape[-1]
    return int((frames - 1) * features["hop"])


def session(name: str, exported: Exported, server: Server, provider: str, threads: int) -> dict[str, Any]:
    """The argument of the page's ``openModel`` (page/live/model.js)."""
    model = hearing(name)
    argument = exported.argument(server)
    first = next(iter(argument["inputs"]))  # what hears
    return {
        "session": {**argument, "provider": provider, "threads": threads},
        "audio": {
            "input": first,
            "shape": argument["inputs"][first]["shape"],
            "features": None if model.features is None else dict(model.features),
        },
    }


def record(wish: Live, answer: Mapping[str, Any], **more: Any) -> Record:
    """The record of a run.

    Parameters
    ----------
    wish : Live
        What was asked for.
    answer : mapping
        What the page said.
    **more
        Further fields of the record: environment, version, noise.
    """
    shared: dict[str, Any] = {
        "cell": wish.cell,
        "protocol": {
            "live": wish.model_dump(mode="json"),
            "clock": answer.get("clock"),
            "source": answer.get("source"),
        },
        **more,
    }
    opened = answer.get("opened") or answer.get("ready", {}).get("opened")
    if opened:
        verdict = labels.judge(opened, wish.provider, wish.threads)
        shared["device_name"] = verdict.device_name or shared.get("device_name")
        if verdict.status != "ok":
            return Record(status=verdict.status, reason=verdict.reason, stage=verdict.stage, **shared)
    if answer["status"] != "ok":
        return Record(status=answer["status"], reason=answer["reason"], stage=answer.get("stage"), **shared)
    hops = {name: np.asarray(values, float) for name, values in answer["hops"].items()}
    if len(hops["from_s"]) < FEWEST_HOPS:
        results, heard_s = len(hops["from_s"]), answer["seconds"]
        why = f"only {results} results came in {heard_s:.3g} s of audio: it is far too slow, or the run too short"
        return Record(status="failed", reason=why, stage="live", metrics=_counted(wish, answer), **shared)
    assert opened is not None
    return Record(
        status="ok",
        stage="live",
        duration_s=answer["seconds"],
        phases=phases([opened]),
        metrics={**_counted(wish, answer), **_timed(wish, answer, hops)},
        series=_series(wish, answer, hops),
        processes=1,
        threads=opened["threads"]["used"],
        **shared,
    )


BURST_S = 0.1  # of audio that a browser may bring at once
FEWEST_HOPS = 6  # an interval of the median needs as many (binomial)


def parts(hops: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Seconds of each hop, by name.

    ``end_to_end`` is ``filling`` (the hop itself) and ``response`` (what follows its last sample); the response is ``buffering``,
    ``inference`` and ``delivery`` to the page.
    """
    return {
        "end_to_end": hops["received_s"] - hops["from_s"],
        "filling": hops["complete_s"] - hops["from_s"],
        "response": hops["received_s"] - hops["complete_s"],
        "buffering": hops["picked_s"] - hops["complete_s"],
        "inference": hops["features_s"] + hops["model_s"],
        "delivery": hops["received_s"] - hops["done_s"],
    }


def _series(wish: Live, answer: Mapping[str, Any], hops: Mapping[str, np.ndarray]) -> list[Series]:
    from labbench.measure import stats

    found = parts(hops)
    warmed = {
        "warmup_calls": answer["ready"]["warmup_calls"],
        "warmed": answer["ready"]["warmed"],
        "stop_reason": "time_budget",
    }

    def series(name: str, seconds: np.ndarray, items: float, unit: str, **told: Any) -> Series:
        taken = [float(value) for value in seconds]
        return stats.series(
            name, taken, [0] * len(taken), list(range(len(taken))), items=items, unit=unit, calls_per_sample=1, **told
        )

    return [
        series("live", found["end_to_end"], 1, "results", **warmed),
        series("inference", found["inference"], answer["hop"] / answer["rate"], "audio_s", **warmed),
    ]


def _timed(wish: Live, answer: Mapping[str, Any], hops: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = parts(hops)
    hop_s = answer["hop"] / answer["rate"]
    means = {name: float(values.mean()) for name, values in found.items()}
    metrics = {f"{name}_mean_s": value for name, value in means.items()}
    for name in ("end_to_end", "response", "buffering"):
        for level in (50, 95, 99):
            metrics[f"{name}_p{level}_s"] = float(np.quantile(found[name], level / 100))
    metrics["features_s"] = float(np.median(hops["features_s"]))
    metrics["model_s"] = float(np.median(hops["model_s"]))
    metrics["real_time_factor"] = means["inference"] / hop_s
    metrics["parts_share"] = (hop_s + means["buffering"] + means["inference"]) / means[
        "end_to_end"
    ]  # 1, if nothing else counts
    return metrics


def _counted(wish: Live, answer: Mapping[str, Any]) -> dict[str, float]:
    counts, rate = answer["counts"], answer["rate"]
    hop_s = answer["hop"] / rate
    dropped = counts["dropped"]
    told = {
        "hop_s": hop_s,
        "hops": counts["hops"],
        "dropped_hops": dropped,
        "dropped_s": dropped * hop_s,
        "waiting_hops": counts["waiting"],
        "most_behind_hops": counts["most_behind"],
        "longest_gap_s": counts["longest_gap_s"],
        "starved_s": counts["starved"] / rate,
        "late_audio_s": answer["seconds"] - counts["written"] / rate,
        "clock_step_s": 0.001 if answer["clock"] == "coarse" else 0.0,
        "keeps_up": float(keeps_up(counts, hop_s)),
    }
    audio = {name: answer["audio"].get(name) for name in ("base_latency_s", "output_latency_s", "quantum_s")}
    return {
        name: float(value) for name, value in {**told, **audio}.items() if value is not None and math.isfinite(value)
    }


def keeps_up(counts: Mapping[str, Any], hop_s: float) -> bool:
    """Whether nothing was dropped and no backlog is left at the end: at most one whole hop, or one burst of the browser's audio."""
    return counts["hops"] > 0 and counts["dropped"] == 0 and counts["waiting"] * hop_s <= max(hop_s, BURST_S)
