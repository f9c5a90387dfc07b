"""A run: a trace offered to backends under a policy, simulated or live, and what came of it."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from labbench.config import ConfigError
from labbench.switching.arrivals import Arrivals, poisson
from labbench.switching.dispatcher import Attempt, Dispatcher, Request, Settings
from labbench.switching.disturbances import Disturbance, in_order
from labbench.switching.drive import World, drive
from labbench.switching.options import SOON_S, USUAL_LOAD, Option, SwitchingError, capacity, fastest_first
from labbench.switching.policies import COMPARED, ExpectedFinish, RoundRobin, make_policy
from labbench.switching.simulator import SimulatedWorld

if TYPE_CHECKING:
    import pandas as pd

    from labbench.switching.live import LiveWorld

REQUEST = ("number", "arrived_s", "seen_s", "outcome", "backend", "begun_s", "finished_s", "attempts")
ATTEMPT = ("backend", "begun_s", "ended_s", "ended", "inside_s")
TABLES = ("requests", "attempts", "log")
COUNTS = ("number", "attempts")
WORDS = ("outcome", "backend", "ended", "what")  # of the tables: columns of whole numbers, and of none
WARM = 5  # the first fifth of the calls of a calibration is left out
CALLS = 20  # expected of a calibration at least, over all backends
FIRST_RATE = 10.0  # of the first look at backends of which nothing is known: few requests a second


@dataclass(frozen=True)
class Run:
    """What came of a trace under a policy. Times are seconds from the start of the run.

    Attributes
    ----------
    provenance : str
        ``simulated`` or ``measured``.
    policy : str
    arrivals : Arrivals
    disturbances : tuple of Disturbance
    settings : Settings
    options : tuple of Option
        What was known of the backends before.
    requests : DataFrame
        One row a request: ``number``, ``arrived_s``, ``seen_s`` (by the dispatcher), ``outcome`` (``answered``, ``expired``,
        ``refused``), ``backend``, ``begun_s``, ``finished_s``, ``attempts``, ``latency_s`` (from arrival, NaN without answer).
    attempts : DataFrame
        One row a call of a backend: ``backend``, ``begun_s``, ``ended_s``, ``ended`` (``answered``, ``abandoned``, ``died``; none
        if it still ran at the end), ``inside_s`` (seconds within the worker, live only), ``number`` of the request (NA: a probe).
    log : DataFrame
        ``at_s``, ``backend``, ``what``: processes that died and started, circuit breakers that opened and closed.
    cpu_s : float
        Processor time of generator and dispatcher; NaN in a simulation.
    """

    provenance: Literal["simulated", "measured"]
    policy: str
    arrivals: Arrivals
    disturbances: tuple[Disturbance, ...]
    settings: Settings
    options: tuple[Option, ...] = field(repr=False)
    requests: pd.DataFrame = field(repr=False)
    attempts: pd.DataFrame = field(repr=False)
    log: pd.DataFrame = field(repr=False)
    cpu_s: float = float("nan")

    def summary(self) -> dict[str, Any]:
        """Counts of requests, and latency over those answered.

        ``accepted`` = ``answered`` + ``lost``: accepted, but not answered within the limit. ``retried``: answered, after an attempt
        that failed.
        """
        outcome, latency = self.requests["outcome"], self.requests["latency_s"].dropna().to_numpy()
        p50, p99 = np.percentile(latency, [50, 99]) if len(latency) else (np.nan, np.nan)
        answered = outcome == "answered"
        return {
            "policy": self.policy,
            "provenance": self.provenance,
            "offered": len(outcome),
            "accepted": int((outcome != "refused").sum()),
            "refused": int((outcome == "refused").sum()),
            "answered": int(answered.sum()),
            "retried": int((answered & (self.requests["attempts"] > 1)).sum()),
            "lost": int((outcome == "expired").sum()),
            "p50_s": float(p50),
            "p99_s": float(p99),
            "mean_s": float(latency.mean()) if len(latency) else float("nan"),
        }

    def overhead(self) -> dict[str, float]:
        """What dispatching itself costs, live: medians and 99th percentiles in seconds.

        ``lag``: from a request's arrival until the dispatcher looked at it. ``transport``: a call's time outside the worker.
        ``cpu_per_request_s``: processor time of generator and dispatcher.
        """
        lag = (self.requests["seen_s"] - self.requests["arrived_s"]).to_numpy()
        done = self.attempts[self.attempts["ended"] == "answered"]
        outside = (done["ended_s"] - done["begun_s"] - done["inside_s"]).dropna().to_numpy()
        found = {"cpu_per_request_s": self.cpu_s / max(len(lag), 1)}
        for name, values in (("lag", lag), ("transport", outside)):
            for percentile in (50, 99):
                value = float(np.percentile(values, percentile)) if len(values) else float("nan")
                found[f"{name}_p{percentile}_s"] = value
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the trace and what was known of the backends included; SI units."""
        return {
            "summary": _known(self.summary()),
            "overhead": _known(self.overhead()) if self.provenance == "measured" else None,
            "policy": self.policy,
            "provenance": self.provenance,
            "cpu_s": None if np.isnan(self.cpu_s) else self.cpu_s,
            "arrivals": self.arrivals.to_dict(),
            "disturbances": [asdict(one) for one in self.disturbances],
            "settings": self.settings.model_dump(),
            "options": [
                {
                    name: value.tolist() if isinstance(value, np.ndarray) else value
                    for name, value in asdict(one).items()
                }
                for one in self.options
            ],
            **{name: _split(getattr(self, name)) for name in TABLES},
        }

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_dict` as JSON; :func:`read_run` reads it."""
        Path(path).write_text(json.dumps(self.to_dict(), allow_nan=False))


def read_run(path: str | Path) -> Run:
    """A run that was saved.

    Raises
    ------
    ConfigError
        If the file is none.
    """
    import pandas as pd

    try:
        found = json.loads(Path(path).read_text())
        tables = {name: pd.DataFrame(found[name]["data"], columns=found[name]["columns"]) for name in TABLES}
        for name, table in tables.items():
            kinds = {column: "Int64" if column in COUNTS else float for column in table if column not in WORDS}
            tables[name] = table.astype(kinds)
        options: list[dict[str, Any]] = [
            {name: np.array(value) if isinstance(value, list) else value for name, value in one.items()}
            for one in found["options"]
        ]
        arrivals = Arrivals(**{**found["arrivals"], "times_s": np.array(found["arrivals"]["times_s"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no run ({error!r}); give a file that a run was saved to") from None
    return Run(
        provenance=found["provenance"],
        policy=found["policy"],
        arrivals=arrivals,
        disturbances=tuple(Disturbance(**one) for one in found["disturbances"]),
        settings=Settings(**found["settings"]),
        options=tuple(Option(**one) for one in options),
        **tables,
        cpu_s=np.nan if found["cpu_s"] is None else found["cpu_s"],
    )


def simulate(
    options: Sequence[Option],
    arrivals: Arrivals,
    policy: str = ExpectedFinish.name,
    disturbances: Iterable[Disturbance] = (),
    settings: Settings | None = None,
    seed: int = 0,
) -> Run:
    """Simulate a run: service times are drawn, with ``seed``, from those measured.

    Raises
    ------
    ConfigError
        For an unknown policy, or a disturbance of a backend that there is not.
    """
    options = fastest_first(options)
    return _run(SimulatedWorld(options, seed), "simulated", options, arrivals, policy, disturbances, settings)


def serve(
    world: LiveWorld,
    options: Sequence[Option],
    arrivals: Arrivals,
    policy: str = ExpectedFinish.name,
    disturbances: Iterable[Disturbance] = (),
    settings: Settings | None = None,
) -> Run:
    """The same, live: takes as long as the trace. ``options`` (:func:`calibrate`) tell what service times to expect at first."""
    gc.collect()
    gc.freeze()  # a collection would hold up the dispatcher, by more the more is loaded
    try:
        world.begin()
        return _run(world, "measured", fastest_first(options), arrivals, policy, disturbances, settings)
    finally:
        gc.unfreeze()


def compared(
    world: LiveWorld | None,
    options: Sequence[Option],
    arrivals: Arrivals,
    policies: Iterable[str] = COMPARED,
    disturbances: Iterable[Disturbance] = (),
    settings: Settings | None = None,
    seed: int = 0,
) -> list[Run]:
    """Every policy on the same trace: simulated, and live too where there is a world."""
    troubles, runs = list(disturbances), []
    for policy in policies:
        runs.append(simulate(options, arrivals, policy, troubles, settings, seed))
        if world is not None:
            runs.append(serve(world, options, arrivals, policy, troubles, settings))
    return runs


def calibrate(world: LiveWorld, rate: float | None = None, seconds: float = 3.0, seed: int = 1) -> list[Option]:
    """Measure the service times of live backends at work: Poisson arrivals, each backend in turn.

    Parameters
    ----------
    rate : float, optional
        Requests per second, over all backends; default: a third of what they can serve, by a first look of a second.
    seconds : float
        How long; longer if that would be too few calls.

    Returns
    -------
    list of Option
        Fastest first. A service time is what the dispatcher sees, from sending a call to its answer.

    Raises
    ------
    SwitchingError
        If a backend answers nothing.
    """
    if rate is None:
        rate = USUAL_LOAD * capacity(calibrate(world, FIRST_RATE, 1.0, seed))
    unknown = [Option(name, np.array([1.0]), 0.0) for name in world.cold_start_s]
    patient = Settings(capacity=10**6, limit_s=10**3, least_patience_s=10**3)
    trace = poisson(rate, max(seconds, CALLS / rate), seed)
    run = serve(world, unknown, trace, RoundRobin.name, settings=patient)
    calls = run.attempts[run.attempts["ended"] == "answered"].sort_values("begun_s")
    found = []
    for name, starts in world.cold_start_s.items():
        begun, ended = calls.loc[calls["backend"] == name, ["begun_s", "ended_s"]].to_numpy(float).T
        if not len(begun):
            raise SwitchingError(
                f"backend {name} answered no call of {len(trace)}; look at how it does with `labbench run`"
            )
        queued = begun - np.concatenate([[-np.inf], ended[:-1]]) < SOON_S
        warm = slice(len(begun) // WARM, None)
        found.append(Option(name, (ended - begun)[warm], starts[0], queued=queued[warm]))
    return fastest_first(found)


def hindsight(run: Run, policy: str | None = None, seed: int = 0) -> Run:
    """A live run simulated once more, with the service times that its backends had around each moment, and their cold starts.

    It meets the machine as it was, so it shows whether queues and dispatching are simulated rightly, apart from whether the machine
    kept its speed. Calls of a slowed backend took as long as they took: they are not slowed once more. With another ``policy``
    it tells what that would have done at the time; both backends should have had calls then, as round-robin sees to.
    """
    calls = run.attempts[run.attempts["ended"] == "answered"].sort_values("begun_s")
    found = []
    for option in run.options:
        mine = calls[calls["backend"] == option.name]
        log = run.log[run.log["backend"] == option.name].groupby("what")["at_s"].first()
        cold_start_s = (
            float(log["started"] - log["died"]) if {"started", "died"} <= set(log.index) else option.cold_start_s
        )
        took, at_s = (mine["ended_s"] - mine["begun_s"]).to_numpy(), mine["begun_s"].to_numpy()
        found.append(Option(option.name, took, cold_start_s, at_s) if len(mine) else option)
    kills = [one for one in run.disturbances if one.factor is None]
    return _run(
        SimulatedWorld(found, seed), "simulated", run.options, run.arrivals, policy or run.policy, kills, run.settings
    )


def _run(
    world: World,
    provenance: Literal["simulated", "measured"],
    options: Sequence[Option],
    arrivals: Arrivals,
    policy: str,
    disturbances: Iterable[Disturbance],
    settings: Settings | None,
) -> Run:
    troubles = in_order(disturbances, [option.name for option in options], arrivals.seconds)
    dispatcher = Dispatcher({option.name: option.usual_s for option in options}, make_policy(policy), settings)
    drive(dispatcher, world, arrivals, troubles)
    cpu_s = world.cpu_s()
    tables = _request_table(dispatcher.requests), _attempt_table(dispatcher.attempts), _log_table(dispatcher.log)
    return Run(provenance, policy, arrivals, troubles, dispatcher.settings, tuple(options), *tables, cpu_s)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """With None for what is not a number, as JSON wants it."""
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in values.items()}


def _split(table: pd.DataFrame) -> dict[str, Any]:
    """Columns and rows of a table, with None for what is missing."""
    found = table.astype(object).where(table.notna(), None).to_dict("split", index=False)
    return {"columns": found["columns"], "data": found["data"]}


def _request_table(requests: list[Request]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({name: [getattr(one, name) for one in requests] for name in REQUEST})
    answered = table["outcome"] == "answered"
    return table.assign(latency_s=(table["finished_s"] - table["arrived_s"]).where(answered))


def _attempt_table(attempts: list[Attempt]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({name: [getattr(one, name) for one in attempts] for name in ATTEMPT})
    numbers = [None if one.request is None else one.request.number for one in attempts]
    return table.assign(number=pd.array(numbers, dtype="Int64"))


def _log_table(log: list[tuple[float, str, str]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(log, columns=["at_s", "backend", "what"])
