"""What is held out of the training data, to find out how well something *new* is predicted: what is new makes the split.

============  ==========================================================================================
random        rows at random: a leak, here to show how good it looks
architecture  models by their operator graph; names that share one are one
family        families of models; those that share an operator graph are one
device        the cells of a device; with ``probes``, so many of them are trained on
version       the cells that one version of their runtime ran
larger        the largest quarter of the models, by parameters
============  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.features import MADE, joined, operator_graphs
from labbench.prediction.residual import folds_by_group
from labbench.words import count, listed

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

Fold = tuple[np.ndarray, np.ndarray]  # rows to train on, rows to test on

LARGEST = 0.25  # share of the models that count as larger than any seen
RUNTIME_PACKAGES = {"eager": "torch", "compile": "torch"}  # others are called as their package


@dataclass(frozen=True)
class Split:
    """One way to hold out rows.

    Attributes
    ----------
    about : str
        What is new in the test rows, in a few words.
    folds : callable
        ``folds(table, environments, config, probes)``: of :func:`labbench.prediction.predictor.training_rows`.
    apart : tuple of str
        What must not be on both sides (keys of :data:`labbench.prediction.leaks.IDENTITIES`); none where the leak is the point.
    """

    about: str
    folds: Callable[[pd.DataFrame, Mapping[str, Environment], PredictionConfig, int], Iterator[Fold]]
    apart: tuple[str, ...]


def folds(
    name: str, table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int = 0
) -> list[Fold]:
    """Training and test rows of each fold of a split.

    Parameters
    ----------
    name : str
        One of :data:`SPLITS`.
    table : DataFrame
        Of :func:`labbench.prediction.predictor.training_rows`.
    environments : mapping
        ``Store.environments()``: for versions.
    config : PredictionConfig
        For ``max_folds`` and ``seed``.
    probes : int
        Cells of the new device to train on.

    Raises
    ------
    ConfigError
        For an unknown split, naming the nearest one.
    PredictionError
        If the data cannot support it; the message says what to measure.
    """
    from labbench.config import ConfigError, unknown_name

    if name not in SPLITS:
        raise unknown_name("split", name, SPLITS)
    if probes < 0 or (probes and name != "device"):
        raise ConfigError(f"probes = {probes}: a number of cells of a new device, for the split 'device' alone")
    return list(SPLITS[name].folds(table, environments, config, probes))


def _of_models(groups: np.ndarray, table: pd.DataFrame, config: PredictionConfig) -> Iterator[Fold]:
    """Groups of models left out in turn. Made networks, which nobody asks about, are always trained on."""
    made = table["family"].to_numpy(str) == MADE
    asked = np.flatnonzero(~made)
    for train, test in folds_by_group(groups[asked], config.max_folds, config.seed):
        yield np.sort(np.concatenate([asked[train], np.flatnonzero(made)])), asked[test]


def _random(
    table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int
) -> Iterator[Fold]:
    del environments, probes
    _several(np.arange(len(table)).astype(str), "random", "measured rows", "measure more with `labbench run`")
    return folds_by_group(np.arange(len(table)), config.max_folds, config.seed)


def _architecture(
    table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int
) -> Iterator[Fold]:
    del environments, probes
    groups = architectures(table)
    _several(groups, "architecture", "architectures", "measure models of other families with `labbench run`")
    return _of_models(groups, table, config)


def _family(
    table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int
) -> Iterator[Fold]:
    del environments, probes
    groups = table["group"].to_numpy(str)
    _several(groups, "family", "model families", "measure models of other families with `labbench run`")
    return _of_models(groups, table, config)


def _device(
    table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int
) -> Iterator[Fold]:
    del environments
    devices = device_names(table)
    _several(devices, "device", "devices", "put the databases of several machines together with `labbench merge`")
    rng = np.random.default_rng(config.seed)
    # A cell that was measured twice is one cell: its other record would be no probe but the answer.
    cells = (table["cell_id" if "cell_id" in table else "cell_key"]).astype("str").to_numpy()
    for device in np.unique(devices):
        there = np.flatnonzero(devices == device)
        names = np.unique(cells[there])
        if probes >= len(names):
            raise PredictionError(
                f"split 'device' cannot take {count(probes, 'probe')}: {device} has {count(len(names), 'cell')}, and at "
                "least one must be left to test; ask for fewer probes, or measure more there"
            )
        probed = np.isin(cells, rng.permutation(names)[:probes]) & (devices == device)
        yield np.flatnonzero((devices != device) | probed), there[~probed[there]]


def _version(
    table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int
) -> Iterator[Fold]:
    del config, probes
    import pandas as pd

    versions = runtime_versions(table, environments)
    runtime, machine = (table[name].astype("str").to_numpy() for name in ("runtime", "machine_id"))
    told = pd.Series(versions).where(versions != "")
    several = told.groupby([machine, runtime]).transform("nunique").to_numpy() > 1
    held_out = sorted(
        {(name, version) for name, version in zip(runtime[several], versions[several], strict=True) if version}
    )
    if not held_out:
        raise PredictionError(
            "split 'version' needs cells of one runtime under two versions on one machine, and there are none; measure again "
            "after an update: earlier records stay in the database"
        )
    for name, version in held_out:
        here = (runtime == name) & (versions == version)
        yield np.flatnonzero(~here), np.flatnonzero(here & several)


def _larger(
    table: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig, probes: int
) -> Iterator[Fold]:
    del environments, config, probes
    sizes = table["parameters"].to_numpy(float)
    models = table["model"].astype("str").to_numpy()
    largest = {name: sizes[models == name].max() for name in np.unique(models[np.isfinite(sizes)])}
    _several(np.array(list(largest)), "larger", "models of known size", "measure more models with `labbench run`")
    limit = np.quantile(list(largest.values()), 1 - LARGEST)
    size = np.array([largest.get(name, np.nan) for name in models])
    small, large = np.flatnonzero(size <= limit), np.flatnonzero(size > limit)
    if not len(large):
        raise PredictionError(
            f"split 'larger' needs models of different sizes, and the largest quarter here has {limit:,.0f} parameters as "
            "all others have; measure larger ones with `labbench run`"
        )
    yield small, large


# Between versions or devices results may agree by rounding, and models are the same on purpose.
SPLITS: dict[str, Split] = {
    "random": Split("rows at random", _random, ()),
    "architecture": Split(
        "architectures it has not seen", _architecture, ("record", "cell", "model", "graph", "result")
    ),
    "family": Split("families it has not seen", _family, ("record", "cell", "model", "family", "graph", "result")),
    "device": Split("a device it has not seen", _device, ("record", "cell")),
    "version": Split("a version of the runtime it has not seen", _version, ("record",)),
    "larger": Split("models larger than any it has seen", _larger, ("record", "cell", "model", "result")),
}


def architectures(table: pd.DataFrame) -> np.ndarray:
    """Name of each row's architecture: the first of those that share an operator graph, shape (n,).

    They share one if any of their rows have equal numbers of kernels of every operator class. Two sizes of a family that differ
    in width alone are then one; that is stricter than need be, and on the safe side.
    """
    names = table["architecture"].to_numpy(str)
    first = joined(names, operator_graphs(table))
    return np.array([first[name] for name in names])


def device_names(table: pd.DataFrame) -> np.ndarray:
    """What each row's device calls itself, so that two machines of a kind are one device; else machine and device."""
    place = (table["machine_id"].astype("str") + " " + table["device"].astype("str")).to_numpy(object)
    if "device_name" not in table:
        return place.astype(str)
    told = table["device_name"].astype(object).to_numpy()
    return np.where(table["device_name"].isna(), place, told).astype(str)


def runtime_versions(table: pd.DataFrame, environments: Mapping[str, Environment]) -> np.ndarray:
    """Version of the package that ran each row; empty where the environment does not tell it."""
    ids, runtimes = (table[name].astype(object).to_numpy() for name in ("environment_id", "runtime"))
    found = []
    for key, runtime in zip(ids, runtimes, strict=True):
        name = str(runtime).split("-")[0]
        software = environments[key].software if key in environments else {}
        found.append(software.get(RUNTIME_PACKAGES.get(name, name), ""))
    return np.array(found, dtype=str)


def _several(groups: Iterable[str], split: str, nouns: str, way_out: str) -> None:
    names = sorted(set(groups))
    if len(names) < 2:
        only = f" ({listed(names)})" if names else ""
        raise PredictionError(f"split {split!r} needs at least two {nouns}, and there is {len(names)}{only}; {way_out}")
