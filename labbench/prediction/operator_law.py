"""A law of many coefficients for cells whose operators are known: each operator is priced by kind and shape, the prices are added.

Every operator contributes its arithmetic at the device's peak rate, what it reads, its weights and what it writes at the device's
bandwidth, and a launch; each times a factor that is a product of what its kind and its shape make of it::

    seconds of a call = sum of cost_c * exp(a_c . theta) over contributions c

``cost_c`` is the cost at the ceiling, ``a_c`` a sparse row: ones for its kind and name, ramps in the log of its sizes, flags for
sizes that fill no tile. Where a call was profiled, its parts are such sums, too (:mod:`labbench.prediction.profiled`). As in
:mod:`labbench.prediction.law` the factors are fitted in the log with Gaussian priors, so they are positive, and one that the data
do not speak about stays where configurations like it have it. Configurations are pooled by how they execute (device type, fusing
or not, exported or not): each is fitted, the fits are averaged by how much each knows of a coefficient, and each is fitted again
about that mean (empirical Bayes, two rounds). A device that was never measured is priced by the mean of those that differ from it
the least: in the device alone, or in the version, too; one that was measured in other versions by the mean that these are a part
of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.features import CALL_S, VERSIONED, Ceilings, Device, kind_of, limits
from labbench.prediction.graphs import BACKWARD, TRAFFIC, exports, fuses
from labbench.prediction.law import Key, fit_factors, labels, rows_of
from labbench.prediction.profiled import Profiles, class_of

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.graphs import Graphs

PRODUCTS = ("pointwise", "convolution", "patch", "depthwise", "grouped", "transposed", "linear", "bmm", "attention")
WINDOWED = ("convolution", "depthwise", "grouped")
BATCHED = ("bmm", "attention", "grouped", "depthwise")
CALL = ("call",)
COST = ("arithmetic", "traffic", "launches")
ONE_BY_ONE = 0.05  # of a launch: start of what an image costs that an interpolation goes through alone; learnt
# Where the ramps of a size begin and end, in the log to base 2; beyond, a factor stays what it is.
SIZES = (3, 5, 6, 7, 8, 9, 11)
RAMPS: Mapping[str, tuple[float, ...]] = {
    "n": SIZES,
    "k": SIZES,
    "m": (8, 12, 14, 16, 18, 20),
    "groups": (3, 5, 7, 9, 11, 13),
    "window": (2, 3.2, 4.7, 5.7, 7),
    "width": (2, 4, 6, 8, 10),
    "bytes": (18, 20, 22, 24, 26, 28),
}
TILES = (8, 64)
# Prior standard deviation of a log factor: of a kind, a name within it, a step of its shape.
KIND, NAME, SHAPE = 2.0, 0.4, 0.3
LEAST_SHARE = 0.01  # of the cells that an operator's name must occur in to have a factor of its own
ROUNDS = 2
OWN_LAW = 60  # cells from which on a configuration's own law is better than one carried over from another device
# Below, a law of its own is worse than one carried over from whatever the kind of device ran: of compiled configurations of an
# RTX 4090, where an RTX 3090 has run none, that of 5 cells was off by 0.22 to 0.35 (mean, in the log) and its intervals of 90 %
# held 33 to 54 %, what was carried over by 0.15 to 0.18; with 19 cells by 0.18 to 0.24 and 0.11 to 0.14.
HARDLY_ANY = 20
MANY_CONTRIBUTIONS = 500_000  # from here on configurations are fitted side by side, in processes

# What configurations have in common, fine to coarse, beside how they execute.
KIN = (("device", "runtime", "precision", "mode", "framework"), ("device", "runtime", "precision", "mode"))

Coefficient = tuple[str, ...]
Column = tuple[Coefficient, float, np.ndarray]  # name, prior standard deviation, value for each contribution


@dataclass(frozen=True)
class Block:
    """What one cause of cost of one kind of operators contributes to some calls.

    Attributes
    ----------
    coefficients : array of int, shape (q,)
    values : array, shape (contributions, q)
        What each contribution has of them.
    amount : array, shape (contributions,)
        FLOPs, bytes, launches or, of the call itself, seconds; of all equal operators of a call together.
    call : array, shape (contributions,)
        To which it belongs, ascending.
    column : int
        Of :meth:`OperatorLaw.parts`.
    label : int
        Class of the operators (:func:`labbench.prediction.profiled.class_of`); -1: of none.
    """

    coefficients: np.ndarray
    values: np.ndarray
    amount: np.ndarray
    call: np.ndarray
    column: int
    label: int


@dataclass(frozen=True)
class Design:
    """Cells as the law sees them. Cells with the same operators at the same batch size share a call.

    Attributes
    ----------
    blocks : list of Block
    call : array, shape (cells,)
    second : array, shape (cells, columns)
        Seconds, at the ceiling, of one unit of the amounts in each column.
    configurations, pools : list of tuple
        Names of each cell's law and of the pool that it belongs to.
    kin : list of tuple of tuple
        Names of the laws between, fine to coarse: of configurations that differ in the device alone, and in the version, too.
    devices : list of tuple
        Machine and device of each cell.
    profiles : Profiles
    """

    blocks: list[Block]
    call: np.ndarray
    second: np.ndarray
    configurations: list[Key]
    pools: list[Key]
    kin: list[tuple[Key, ...]]
    devices: list[Key]
    profiles: Profiles

    def __len__(self) -> int:
        return len(self.call)

    def take(self, rows: np.ndarray | Sequence[int]) -> Design:
        """Some of the cells, in the order asked for."""
        rows = np.asarray(rows, int)
        texts = (self.configurations, self.pools, self.kin, self.devices)
        configurations, pools, kin, devices = ([of[row] for row in rows] for of in texts)
        profiles = self.profiles.take(rows)
        return Design(self.blocks, self.call[rows], self.second[rows], configurations, pools, kin, devices, profiles)

    def contributions(self, coefficients: int, target: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """To whatever was measured: the cells, and the parts of a call where it was profiled.

        Parameters
        ----------
        coefficients : int
        target : array, shape (cells,)
            Seconds of a call.

        Returns
        -------
        sparse array, shape (contributions, coefficients)
            Factors.
        array, shape (contributions,)
            Cost at the ceiling in seconds.
        array of int, shape (contributions,)
            Which measurement each belongs to.
        array, shape (measurements,)
            Seconds: ``target``, and those of the parts.
        """
        from scipy import sparse

        factors, cost, cell, label = [], [], [], []
        for block in self.blocks:
            start, stop = (np.searchsorted(block.call, self.call, side) for side in ("left", "right"))
            lengths = stop - start
            index = np.repeat(start - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
            here = np.repeat(np.arange(len(self)), lengths)
            values = block.values[index].astype(float)
            row, place = np.nonzero(values)
            shape = (len(index), coefficients)
            factors.append(sparse.csr_array((values[row, place], (row, block.coefficients[place])), shape=shape))
            cost.append(block.amount[index] * self.second[here, block.column])
            cell.append(here)
            label.append(np.full(len(here), block.label))
        whole, costs, cells = sparse.vstack(factors, format="csr"), np.concatenate(cost), np.concatenate(cell)
        if self.profiles.none:
            return whole, costs, cells, target
        part, seconds = self.profiles.parts(cells, np.concatenate(label), target)
        again = np.flatnonzero(part >= 0)
        return (
            sparse.vstack([whole, whole[again]], format="csr"),
            np.concatenate([costs, costs[again]]),
            np.concatenate([cells, len(target) + part[again]]),
            np.concatenate([target, seconds]),
        )


@dataclass(frozen=True)
class OperatorLaw:
    """Laws of every configuration.

    Attributes
    ----------
    graphs : Graphs
        Operators of all workloads that it may be asked about.
    ceilings : mapping
        Of each machine and device.
    noise, pooling : float
        Scale of the errors in the log; how far a configuration may lie from its pool, as a share of the pool's own prior.
    coefficients : dict
        Each to its prior standard deviation.
    kinds : tuple of str
        Of operators that were learnt from.
    log_factors : dict
        Name of a configuration or pool to its log factors.
    measured_on : dict
        Name of a law between to the devices that it knows.
    """

    graphs: Graphs
    ceilings: Mapping[Device, Ceilings]
    noise: float = 0.1
    pooling: float = 0.5
    coefficients: dict[Coefficient, float] = field(default_factory=dict, repr=False)
    kinds: tuple[str, ...] = ()
    log_factors: dict[Key, np.ndarray] = field(default_factory=dict, repr=False)
    measured_on: dict[Key, set[Key]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, frame: pd.DataFrame, graphs: Graphs, ceilings: Mapping[Device, Ceilings], noise: float) -> OperatorLaw:
        """With a coefficient for whatever the operators of training rows have; their values are still to be fitted."""
        operators, call = graphs.calls(frame[graphs.number(frame) >= 0])
        cells = np.bincount(call)
        found: dict[Coefficient, float] = {CALL: KIND}
        for _, these, _, _, columns in _contributions(operators):
            calls = operators["row"].to_numpy()[these]
            found |= {
                name: width
                for name, width, value in columns
                if width != NAME or cells[np.unique(calls[value != 0])].sum() >= LEAST_SHARE * len(call)
            }
        return cls(graphs, ceilings, noise, coefficients=found, kinds=tuple(sorted(operators["kind"].unique())))

    def known(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the operators are known."""
        return self.graphs.number(frame) >= 0

    def design(self, frame: pd.DataFrame) -> Design:
        """What the operators of a frame's cells contribute."""
        operators, call = self.graphs.calls(frame)
        row, count = operators["row"].to_numpy(), operators["count"].to_numpy(float)
        place = {name: number for number, name in enumerate(self.coefficients)}
        kinds = {kind: number for number, kind in enumerate(self.kinds)}
        blocks = []
        for kind, these, amount, cause, columns in _contributions(operators):
            known = [(place[name], value) for name, _, value in columns if name in place]
            values = np.zeros((len(these), len(known)), np.float32)
            for number, (_, value) in enumerate(known):
                values[:, number] = value
            coefficients = np.array([number for number, _ in known], int)
            column = kinds.get(kind, len(kinds)) * len(COST) + cause
            blocks.append(Block(coefficients, values, amount * count[these], row[these], column, class_of(kind)))
        calls = np.arange(call.max(initial=-1) + 1)
        ones = np.ones((len(calls), 1), np.float32)
        blocks.append(Block(np.array([place[CALL]]), ones, np.full(len(calls), CALL_S), calls, self.columns - 1, -1))
        peak, bandwidth, dispatch_s = limits(frame, self.ceilings)
        of_kind = np.column_stack([1 / peak, 1 / bandwidth, dispatch_s])
        return Design(
            blocks,
            call,
            np.hstack([np.tile(of_kind, len(kinds) + 1), np.ones((len(frame), 1))]),
            labels(frame, VERSIONED),
            list(zip(kind_of(frame), fuses(frame), exports(frame), strict=True)),
            list(zip(*(labels(frame.assign(device=kind_of(frame)), names) for names in KIN), strict=True)),
            labels(frame, ("machine_id", "device")),
            Profiles.of(frame),
        )

    def fit(self, design: Design, target: np.ndarray) -> OperatorLaw:
        """A copy with factors for every configuration of a design, sought from those that it has.

        Parameters
        ----------
        design : Design
        target : array, shape (cells,)
            Seconds of a call.
        """
        from joblib import Parallel, delayed

        width = np.array(list(self.coefficients.values()))
        fitted: dict[Key, np.ndarray] = {}
        measured_on: dict[Key, set[Key]] = {}
        many = sum(len(block.amount) for block in design.blocks) > MANY_CONTRIBUTIONS
        workers = Parallel(n_jobs=-1 if many else 1, max_nbytes=None)
        for pool, members in rows_of(design.pools).items():
            names = rows_of([design.configurations[row] for row in members])
            cells = {name: np.array(members)[rows] for name, rows in names.items()}
            terms = {name: design.take(rows).contributions(len(width), target[rows]) for name, rows in cells.items()}
            centre, spread = np.zeros(len(width)), width
            start = {name: self.log_factors[name] for name in cells if name in self.log_factors}
            for _ in range(ROUNDS):
                found = workers(
                    delayed(fit_factors)(*terms[name], centre, spread, self.noise, start.get(name)) for name in cells
                )
                start = {name: factors for name, (factors, _) in zip(cells, found, strict=True)}
                known = [one for _, one in found]
                centre = _averaged(list(start.values()), known, np.zeros(len(width)), width, self.pooling * width)
                spread = self.pooling * width
            fitted |= start | {pool: centre}
            chains = [(*design.kin[rows[0]], pool) for rows in cells.values()]
            devices = [design.devices[rows[0]] for rows in cells.values()]
            for level in reversed(range(len(KIN))):  # coarse to fine: the finer, the more alike
                spread = spread / 2
                for name, like in rows_of([chain[level] for chain in chains]).items():
                    factors, knows = [list(start.values())[i] for i in like], [known[i] for i in like]
                    outer = fitted[chains[like[0]][level + 1]]
                    fitted[name] = _averaged(factors, knows, outer, 2 * spread, spread)
                    measured_on[name] = {devices[i] for i in like}
        return replace(self, log_factors=fitted, measured_on=measured_on)

    def noisier(self, noise: float) -> OperatorLaw:
        """The same that takes errors of such a scale, in the log, for noise."""
        return replace(self, noise=noise)

    def carries(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the configuration has a law of its own."""
        return np.array([name in self.log_factors for name in labels(frame, VERSIONED)], bool)

    def few(self, frame: pd.DataFrame) -> np.ndarray:
        """Of training rows those of configurations with too few cells for a law, where others can tell of them.

        These are another device's like it or, for one with hardly any, all of the kind of device.
        """
        kinds = kind_of(frame)
        names, kin = labels(frame, VERSIONED), labels(frame.assign(device=kinds), KIN[-1])
        cells = Counter(names)
        known = [cells[name] >= OWN_LAW for name in names]
        enough = {*compress(kin, known), *compress(kinds, known)}
        return np.array(
            [
                (cells[name] < OWN_LAW and like in enough) or (cells[name] < HARDLY_ANY and kind in enough)
                for name, like, kind in zip(names, kin, kinds, strict=True)
            ],
            bool,
        )

    def parts(self, design: Design, elsewhere: bool = False) -> np.ndarray:
        """Seconds by kind of operator and ``COST``, of kinds never seen, and of the call itself: shape (cells, columns).

        Cells of a configuration that was not fitted, and all of them if ``elsewhere``, are priced as configurations like theirs
        are, those of a pool that was not fitted at the ceilings.
        """
        places = zip(design.configurations, design.kin, design.pools, design.devices, strict=True)
        laws = [
            own if own in self.log_factors and not elsewhere else self._nearest(kin, pool, device)
            for own, kin, pool, device in places
        ]
        out = np.zeros((len(design), self.columns))
        for name, cells in rows_of(laws).items():
            theta = self.log_factors.get(name, np.zeros(len(self.coefficients))).astype(np.float32)
            calls, cell = np.unique(design.call[cells], return_inverse=True)
            asked = np.zeros(len(design.blocks[-1].amount), bool)  # the last block has one contribution a call
            asked[calls] = True
            amount = np.zeros((self.columns, len(asked)))
            for block in design.blocks:
                rows = np.flatnonzero(asked[block.call])
                scaled = block.amount[rows] * np.exp(block.values[rows] @ theta[block.coefficients])
                amount[block.column] += np.bincount(block.call[rows], scaled, len(asked))
            out[cells] = amount.T[calls][cell] * design.second[cells]
        return out

    def _nearest(self, kin: Sequence[Key], pool: Key, device: Key) -> Key:
        """The finest law between that knows the device, else the finest there is."""
        own = (name for name in kin if device in self.measured_on.get(name, ()))
        return next(own, next((name for name in (*kin, pool) if name in self.log_factors), ()))

    def features(self, frame: pd.DataFrame) -> OperatorFeatures:
        """What the residual is learnt from, of training rows."""
        names = tuple((column, text) for column in VERSIONED for text in sorted(frame[column].astype("str").unique()))
        return OperatorFeatures(self.graphs, names)

    @property
    def columns(self) -> int:
        """Of :meth:`parts`."""
        return (len(self.kinds) + 1) * len(COST) + 1


def _averaged(
    factors: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    centre: np.ndarray,
    width: np.ndarray,
    spread: np.ndarray,
) -> np.ndarray:
    """Mean of what configurations like one another found, each by what it knows.

    Their factors lie about it by ``spread``, and it lies about ``centre`` by ``width``.
    """
    precision = [1 / (spread**2 + 1 / np.maximum(one, 1e-9)) for one in known]
    total = sum((one * of for one, of in zip(precision, factors, strict=True)), centre / width**2)
    return np.asarray(total / (1 / width**2 + sum(precision)))


@dataclass(frozen=True)
class OperatorFeatures:
    """Statistics of the operators of a cell, and which configuration it is.

    Attributes
    ----------
    graphs : Graphs
    names : tuple of (str, str)
        Columns of texts and a value each: one indicator for each pair.
    """

    graphs: Graphs
    names: tuple[tuple[str, str], ...]

    def table(self, frame: pd.DataFrame) -> np.ndarray:
        """Sizes of products weighed by their FLOPs, totals, and indicators, shape (cells, q)."""
        operators, call = self.graphs.calls(frame)
        row, count = operators["row"].to_numpy(), operators["count"].to_numpy(float)
        calls = call.max(initial=-1) + 1
        flops, moved = (
            operators["flops"].to_numpy(float) * count,
            operators[list(TRAFFIC)].sum(axis=1).to_numpy() * count,
        )
        products = np.where(operators["kind"].str.removesuffix(BACKWARD).isin(PRODUCTS), flops, 0.0)

        def total(value: np.ndarray) -> np.ndarray:
            return np.bincount(row, value, calls)

        def mean(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
            return np.asarray(total(value * weight) / np.maximum(total(weight), 1.0))

        columns = []
        for name in ("m", "n", "k", "groups"):
            log = np.log2(np.maximum(operators[name].to_numpy(float), 1.0))
            centre = mean(log, products)
            columns += [centre, np.sqrt(np.maximum(mean(log**2, products) - centre**2, 0.0))]
        for name in ("n", "k"):
            size = operators[name].to_numpy(float)
            columns += [mean((size % 8 == 0).astype(float), products), mean((size <= 64).astype(float), products)]
        batch = np.ones(calls)
        batch[call] = np.maximum(frame["batch_size"].to_numpy(float), 1.0)
        sums = [np.log(total(value) + 1.0) for value in (moved, flops, count)]
        width = np.log2(np.maximum(operators["width"].to_numpy(float), 1.0))
        columns += [sums[0] - np.log(batch), sums[1] - np.log(batch), sums[2], sums[1] - sums[0], sums[0] - sums[2]]
        columns += [mean(width, moved), np.log2(batch)]
        return np.hstack([np.column_stack(columns)[call], self.indicators(frame)]).astype(float)

    def indicators(self, frame: pd.DataFrame) -> np.ndarray:
        """Which configuration each row is of, shape (cells, names)."""
        texts = {column: frame[column].astype("str").to_numpy(object) for column, _ in self.names}
        named = [texts[column] == value for column, value in self.names]
        return np.column_stack(named).astype(float) if named else np.zeros((len(frame), 0))


def _contributions(operators: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray, int, list[Column]]]:
    """Of each kind of operator and cause of cost: which operators, the amount of one, the cause, what scales its cost."""
    import pandas as pd

    spelt = operators["name"].cat
    named, texts = pd.factorize(spelt.categories.str.rstrip("_"), sort=True)  # in place or not
    named = named[spelt.codes.to_numpy()]
    for kind, these in operators.groupby("kind", sort=True, observed=True):
        index, forward = these.index.to_numpy(), kind.removesuffix(BACKWARD)
        one = np.ones(len(these))
        size = {name: these[name].to_numpy(float) for name in ("n", "k", "m", "groups", "window", "width")}
        size["bytes"] = sum((these[name].to_numpy(float) for name in TRAFFIC), np.zeros(len(these)))
        told = np.unique(named[index] if forward not in PRODUCTS else [])
        names: list[Column] = [((kind, texts[one]), NAME, (named[index] == one).astype(float)) for one in told]
        window: list[Column] = []
        if forward in WINDOWED:
            window = [*_ramps(size, "window"), (("strided",), SHAPE, (these["stride"] > 1).to_numpy(float))]
        if forward in PRODUCTS:
            shape = [*_ramps(size, "n"), *_ramps(size, "k"), *_ramps(size, "m"), *_misfits(size), *window]
            shape += _ramps(size, "groups") if forward in BATCHED else []
            columns = _named([((), KIND, one), *shape], kind, "arithmetic")
            yield kind, index, these["flops"].to_numpy(float), 0, columns
        shape = [*_ramps(size, "width"), *_ramps(size, "bytes"), *window, *names]
        for direction in TRAFFIC:
            moved = these[direction].to_numpy(float)
            some = np.flatnonzero(moved > 0)
            columns = [((kind, direction), KIND, one), *_named(shape, kind, "traffic")]
            picked = [(name, width, value[some]) for name, width, value in columns]
            yield kind, index[some], moved[some], 1, picked
        yield kind, index, one, 2, _named([((), KIND, one), *names], kind, "launch")
        if kind == "resample":
            alone = size["groups"] * ONE_BY_ONE * (size["groups"] > 1)
            yield kind, index, alone, 2, _named([((), KIND, one)], kind, "image")


def _named(columns: Iterable[Column], *prefix: str) -> list[Column]:
    return [((*prefix, *name), width, value) for name, width, value in columns]


def _ramps(size: Mapping[str, np.ndarray], name: str) -> list[Column]:
    """Steps of a factor over the size's range: from 0 below a step to 1 above."""
    log = np.log2(np.maximum(size[name], 1.0))
    steps = pairwise(RAMPS[name])
    return [((name, str(low)), SHAPE, np.clip((log - low) / (high - low), 0.0, 1.0)) for low, high in steps]


def _misfits(size: Mapping[str, np.ndarray]) -> list[Column]:
    """Whether the sides of a product leave a part of their tiles empty."""
    return [
        ((name, f"beside {tile}"), SHAPE, (size[name] % tile != 0).astype(float))
        for name in ("n", "k")
        for tile in TILES
    ]
