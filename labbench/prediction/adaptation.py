"""What a fitted law leaves over, learnt across models, devices and configurations, and which cell tells most about the rest.

``log(measured / law)`` of a cell is a Gaussian process (Rasmussen & Williams 2006): a sum over parts times levels,

    cov(a, b) = sum_part sum_level variance[part, level] * alike[part](a, b) * (a and b have the same label at the level)

- parts: ``offset`` (1), ``shares`` (the product of the law's shares: a correction of each of its coefficients, shrunk to none),
  ``near`` (Matérn 3/2 of the distance between graphs), ``same`` (one graph);
- levels, of the caller's choice: all cells, the kind of device, the device, its settings, ..., the configuration itself.

The variances maximize the marginal likelihood under log-normal priors. Two or three devices cannot tell how far the next one
departs, nor how much of that is each graph's own, so several widths of either are kept for a device (or settings) that was never
learnt from, and the evidence of the first cells measured there (*probes*) weighs them. Probes are few: each is drawn to within
``CLIP`` of its own leave-one-out prediction, so that one odd model does not spoil the others, and their scatter scales the interval
as that of a sample from a normal distribution of unknown variance would (Student's t).

What to measure next minimizes the integrated variance (Cohn 1996, "Neural network exploration using optimal experiment design"):
the cell whose measurement takes most off the variances of all that was asked about, for its cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from labbench.prediction.law import rows_of

PARTS = ("offset", "shares", "near", "same")
ALL = "all"  # the level at which all cells have one label
# Centres of the priors of standard deviations, in the log, and the priors' own spread in the log of a variance.
PRIOR_SD = {"offset": 0.1, "shares": 0.1, "near": 0.05, "same": 0.03}
NOISE_SD = 0.02
PRIOR_SPREAD = 1.5
LENGTH = 0.6  # of the Matérn covariance; :func:`graph_features` is scaled for it
DEPARTURES = (0.1, 0.25, 0.45)  # s.d. of the offset and the log coefficients of a device that was never learnt from
DEPARTURES_OF_GRAPHS = (1 / 3, 1.0)  # of these: s.d. of what it does to graphs beside that
LEARNT_ROWS, TUNED_ROWS = 4000, 700  # Cholesky factors of so many rows take seconds
TUNING_STEPS = 10
CLIP_TRAINING, CLIP = 2.5, 2.0  # leave-one-out standard deviations
CLIPPINGS, SETTLED = 300, 0.01  # steps at most; in standard deviations, a step that is worth none
FREEDOM = 6.0  # what the model's own scale counts for against the probes' scatter, in probes


@dataclass(frozen=True)
class Traits:
    """What the covariance knows of some cells.

    Attributes
    ----------
    graph : array, shape (n,)
        Label of the operator graph, e.g. model and size of input.
    features : array, shape (n, q)
        Of the graph: graphs a distance of ``LENGTH`` apart still resemble one another.
    shares : array, shape (n, p)
        Share that each of the law's terms has in its prediction; rows sum to one.
    levels : mapping of str to array, shape (n,)
        Label of each cell at each level.
    """

    graph: np.ndarray
    features: np.ndarray
    shares: np.ndarray
    levels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.graph)

    def take(self, rows: Any) -> Traits:
        """Some of the cells, by an index or a mask."""
        levels = {name: np.asarray(labels)[rows] for name, labels in self.levels.items()}
        return Traits(self.graph[rows], self.features[rows], self.shares[rows], levels)

    def with_rows(self, other: Traits) -> Traits:
        """These cells and then the others."""
        levels = {name: np.concatenate([labels, other.levels[name]]) for name, labels in self.levels.items()}
        graph, features, shares = (
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("graph", "features", "shares")
        )
        return Traits(graph, features, shares, levels)


def graph_features(statistics: np.ndarray, shares: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Statistics of graphs and the law's shares of them on a common scale: rows for ``Traits.features``.

    Statistics are standardized and count together as one; shares enter by three times their square roots (the Hellinger distance),
    which told more about what graphs have in common than the statistics did.

    Parameters
    ----------
    statistics : array, shape (n, q)
    shares : array, shape (n, p)
    reference : array, shape (m, q), optional
        Statistics whose mean and spread are the scale; default: these.
    """
    reference = statistics if reference is None else reference
    spread = reference.std(axis=0)
    standard = (statistics - reference.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.hstack([standard / np.sqrt(max(statistics.shape[1], 1)), 3 * np.sqrt(shares)])


@dataclass(frozen=True)
class Forecast:
    """Of each cell the distribution of ``log(measured / law)``: Student's t.

    Attributes
    ----------
    mean, sd, freedom : array, shape (n,)
        ``freedom``: degrees of it.
    """

    mean: np.ndarray
    sd: np.ndarray
    freedom: np.ndarray

    def reach(self, level: float) -> np.ndarray:
        """Half-width of the interval that holds the measurement with probability ``level``, in the log."""
        from scipy.stats import t

        return np.asarray(self.sd * t.ppf((1 + level) / 2, self.freedom))


@dataclass(frozen=True)
class Adaptation:
    """The fitted process; :meth:`learn` adds measured cells of a new device in no time.

    Attributes
    ----------
    traits : Traits
        Cells that were learnt from.
    variances : dict
        (part, level) to variance.
    noise : float
        Variance of a measurement beside everything else.
    departing : tuple of str
        Levels at which a label that was never learnt from may depart by ``DEPARTURES``.
    factor, whitened : array
        Lower Cholesky factor of the cells' covariance and, through it, what the law left over of them.
    probes : Traits, left_over : array
        Cells that were learnt later.
    """

    traits: Traits
    variances: Mapping[tuple[str, str], float]
    noise: float
    departing: tuple[str, ...]
    factor: np.ndarray
    whitened: np.ndarray
    probes: Traits
    left_over: np.ndarray

    @classmethod
    def fit(
        cls,
        traits: Traits,
        left_over: np.ndarray,
        departing: Sequence[str] = (),
        *,
        max_rows: int = LEARNT_ROWS,
        seed: int = 0,
    ) -> Adaptation:
        """Fitted to ``log(measured / law)`` of cells; of more than ``max_rows`` a random part is taken.

        Parameters
        ----------
        traits : Traits
        left_over : array, shape (n,)
        departing : sequence of str
            Levels at which new labels may depart widely, e.g. the device's.
        max_rows : int
        seed : int
        """
        from scipy.linalg import cholesky, solve_triangular

        rng = np.random.default_rng(seed)
        names = rng.permutation(np.unique(traits.graph))
        order = {name: place for place, name in enumerate(names)}
        tuned = np.argsort([order[name] for name in traits.graph], kind="stable")[:TUNED_ROWS]
        variances, noise = _tune(traits.take(tuned), left_over[tuned])
        if len(traits) > max_rows:
            kept = np.sort(rng.choice(len(traits), max_rows, replace=False))
            traits, left_over = traits.take(kept), left_over[kept]
        factor = cholesky(_with_noise(_covariance(variances, traits, traits), noise), lower=True)
        inverse = solve_triangular(factor, np.eye(len(factor)), lower=True)
        calm = _clipped(
            left_over, lambda values: inverse.T @ (inverse @ values), (inverse**2).sum(axis=0), CLIP_TRAINING
        )
        none = traits.take(slice(0, 0))
        return cls(traits, variances, noise, tuple(departing), factor, inverse @ calm, none, np.empty(0))

    def learn(self, traits: Traits, left_over: np.ndarray) -> Adaptation:
        """A copy that has learnt from further cells, too."""
        return replace(
            self, probes=self.probes.with_rows(traits), left_over=np.concatenate([self.left_over, left_over])
        )

    def predict(self, traits: Traits, siblings: tuple[Traits, np.ndarray] | None = None) -> Forecast:
        """What the law leaves over of some cells.

        Parameters
        ----------
        traits : Traits
        siblings : (Traits, array), optional
            Measured cells that were not learnt from, and what the law left over of them: those of a graph that is asked about tell
            of that graph.
        """
        others, left_over = (traits.take(slice(0, 0)), np.empty(0)) if siblings is None else siblings
        same = np.isin(others.graph, traits.graph)
        others, left_over = others.take(same), left_over[same]
        groups = [(np.arange(0), np.arange(len(traits)))]
        if len(others):
            asked_of = rows_of(traits.graph.tolist())
            groups = [(np.flatnonzero(others.graph == name), np.array(rows)) for name, rows in asked_of.items()]
        known = self.probes.with_rows(others)
        left_over = np.concatenate([self.left_over, left_over])
        everything = known.with_rows(traits)
        gain = self._gain(everything)
        mean, sd, freedom = gain.T @ self.whitened, np.empty(len(traits)), np.empty(len(traits))
        surprise, shift = left_over - mean[: len(known)], np.empty(len(traits))
        for own, asked in groups:
            told = np.concatenate([np.arange(len(self.probes)), len(self.probes) + own])
            here = np.concatenate([told, len(known) + asked])
            shift[asked], sd[asked] = self._told(everything.take(here), gain[:, here], surprise[told])
            freedom[asked] = FREEDOM + len(told)
        return Forecast(mean[len(known) :] + shift, sd, freedom)

    def _told(self, traits: Traits, gain: np.ndarray, surprise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the first cells, whose surprise is known, tell of the others: the shift of each and its standard deviation."""
        count = len(surprise)
        known, asked = traits.take(slice(0, count)), traits.take(slice(count, None))
        own = _variance(self.variances, asked) - (gain[:, count:] ** 2).sum(axis=0)
        departures, alone = self._departures(traits), self._departing_variance(asked)
        if not count:
            wide = np.mean([_departed(alone, *one) for one in departures], axis=0)
            return np.zeros(len(asked)), np.sqrt(np.maximum(own + wide, 0) + self.noise)
        beside = _covariance(self.variances, known, traits) - gain[:, :count].T @ gain
        departing = self._departing(known, traits)
        found = [
            _condition(beside + _departed(departing, *one), own + _departed(alone, *one), surprise, self.noise)
            for one in departures
        ]
        evidence = np.array([one.evidence for one in found])
        weight = np.exp(evidence - evidence.max())
        weight /= weight.sum()
        shifts, spreads = np.array([one.shift for one in found]), np.array([one.variance for one in found])
        shift = weight @ shifts
        return shift, np.sqrt(weight @ (spreads + (shifts - shift) ** 2))

    def choose(
        self,
        candidates: Traits,
        targets: Traits | None = None,
        *,
        count: int | None = None,
        costs: np.ndarray | None = None,
        budget: float = np.inf,
        weights: np.ndarray | None = None,
    ) -> tuple[list[int], list[float]]:
        """Candidates to measure, best first, each chosen given those before; nothing need be measured in between.

        Parameters
        ----------
        candidates : Traits
        targets : Traits, optional
            Cells whose variance is to shrink; default: the candidates.
        count : int, optional
            At most so many.
        costs : array, optional
            Of measuring each candidate, e.g. in seconds; default: all cost the same.
        budget : float
            What the chosen ones may cost together. One that no longer fits is passed over.
        weights : array, optional
            How much the variance of each target counts.

        Returns
        -------
        list of int, list of float
            Rows of the candidates, and the mean variance (weighted) of the targets that is left after each.
        """
        targets = candidates if targets is None else targets
        costs = np.ones(len(candidates)) if costs is None else np.asarray(costs, float)
        weights = np.ones(len(targets)) if weights is None else np.asarray(weights, float)
        among = self._posterior(candidates, candidates)
        across = among.copy() if targets is candidates else self._posterior(targets, candidates)
        left = float(weights @ self._posterior_variance(targets))
        chosen: list[int] = []
        after: list[float] = []
        spent, open_ = 0.0, np.ones(len(candidates), bool)
        while len(chosen) < (len(candidates) if count is None else count):
            open_ &= spent + costs <= budget
            if not open_.any():
                break
            gains = weights @ across**2 / (np.diag(among) + self.noise)
            best = int(np.where(open_, gains / costs, -1.0).argmax())
            chosen.append(best)
            left -= float(gains[best])
            after.append(max(left, 0.0) / max(float(weights.sum()), 1e-300))
            spent, open_[best] = spent + costs[best], False
            slope = among[best] / (among[best, best] + self.noise)
            across -= np.outer(across[:, best], slope)
            among -= np.outer(among[:, best].copy(), slope)
        return chosen, after

    def mean_variance(self, traits: Traits, weights: np.ndarray | None = None) -> float:
        """Mean (weighted) variance of some cells before anything is chosen: what :meth:`choose` begins with."""
        return float(np.average(self._posterior_variance(traits), weights=weights))

    def explained(self, measured: Traits, others: Traits) -> np.ndarray:
        """Share of the variance of each of the others that measuring one cell would take, shape (measured, others)."""
        across = self._posterior(measured, others)
        own = self._posterior_variance(measured)[:, None] + self.noise
        return np.asarray(across**2 / own / np.maximum(self._posterior_variance(others), 1e-30))

    def _gain(self, traits: Traits) -> np.ndarray:
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self.factor, _covariance(self.variances, self.traits, traits), lower=True))

    def _departures(self, traits: Traits) -> list[tuple[float, float]]:
        """Standard deviations of departures that are to be told apart, and of graphs' own: none where nothing departs."""
        new = any(self._new(level, traits).any() for level in self.departing)
        return list(product(DEPARTURES, DEPARTURES_OF_GRAPHS)) if new else [(0.0, 0.0)]

    def _new(self, level: str, traits: Traits) -> np.ndarray:
        return ~np.isin(traits.levels[level], self.traits.levels[level])

    def _departing(self, a: Traits, b: Traits) -> tuple[np.ndarray, np.ndarray]:
        """Covariances of cells at labels never learnt from, for departures of one: of all graphs alike, and of each beside."""
        levels = np.zeros((len(a), len(b)))
        for level in self.departing:
            levels += self._new(level, a)[:, None] & _equal(a.levels[level], b.levels[level])
        return levels * (1 + a.shares @ b.shares.T), levels * _alike("near", a, b)

    def _departing_variance(self, traits: Traits) -> tuple[np.ndarray, np.ndarray]:
        """Diagonals of :meth:`_departing`."""
        levels = sum((self._new(level, traits).astype(float) for level in self.departing), np.zeros(len(traits)))
        return levels * (1 + (traits.shares**2).sum(axis=1)), levels

    def _posterior(self, a: Traits, b: Traits) -> np.ndarray:
        """Covariance given all that was learnt, with departures of middling width, graphs alike."""
        departure = float(np.median(DEPARTURES)), DEPARTURES_OF_GRAPHS[0]

        def prior(one: Traits, other: Traits) -> np.ndarray:
            gains = self._gain(one).T @ self._gain(other)
            departed = _departed(self._departing(one, other), *departure)
            return np.asarray(_covariance(self.variances, one, other) - gains + departed)

        found = prior(a, b)
        if len(self.probes):
            inner = _with_noise(prior(self.probes, self.probes), self.noise)
            found = found - prior(a, self.probes) @ np.linalg.solve(inner, prior(self.probes, b))
        return found

    def _posterior_variance(self, traits: Traits) -> np.ndarray:
        step = 500  # rows at a time: only the diagonal is wanted
        parts = [np.arange(start, min(start + step, len(traits))) for start in range(0, len(traits), step)]
        return np.concatenate([np.diag(self._posterior(traits.take(rows), traits.take(rows))) for rows in parts])


def _departed(parts: tuple[np.ndarray, np.ndarray], width: float, of_graphs: float) -> np.ndarray:
    """Covariance or variance that a departure gives; ``parts`` are of a departure of one."""
    together, beside = parts
    return width**2 * (together + of_graphs**2 * beside)


@dataclass(frozen=True)
class _Conditioned:
    shift: np.ndarray
    variance: np.ndarray
    evidence: float


def _condition(beside: np.ndarray, own: np.ndarray, surprise: np.ndarray, noise: float) -> _Conditioned:
    """Cells after probes: ``beside`` is the probes' covariance with themselves and then with the cells."""
    count = len(surprise)
    among, across = beside[:, :count], beside[:, count:]
    inner = _with_noise(among, noise)
    inverse = np.linalg.inv(inner)
    calm = _clipped(surprise, lambda values: inverse @ values, np.diag(inverse), CLIP)
    gain = inverse @ across
    # Huber's loss: what was drawn in counts in proportion, not squared.
    misfit = float(calm @ inverse @ calm + 2 * CLIP * (np.abs(surprise - calm) * np.sqrt(np.diag(inverse))).sum())
    scale = (FREEDOM + misfit) / (FREEDOM + count)
    variance = np.maximum(own - (gain * across).sum(axis=0), 0) + noise
    # Log density of a multivariate t with FREEDOM degrees, but for what does not depend on the covariance.
    evidence = -0.5 * np.linalg.slogdet(inner)[1] - 0.5 * (FREEDOM + count) * np.log1p(misfit / FREEDOM)
    return _Conditioned(gain.T @ calm, scale * variance, float(evidence))


def _clipped(values: np.ndarray, solve: Any, precision: np.ndarray, limit: float) -> np.ndarray:
    """Values drawn to within ``limit`` standard deviations of their leave-one-out predictions.

    Those follow from the inverse covariance: residual ``(K^-1 y)_i / (K^-1)_ii``, variance ``1 / (K^-1)_ii`` (Rasmussen & Williams
    2006, equation 5.12). What each is drawn by is the mean shift of She & Owen 2011 (arXiv:1006.2592), with an absolute penalty the
    same as Huber's loss; found by coordinate descent, the largest step first, which cannot diverge as the problem is convex.
    """
    sd, shift, weight = 1 / np.sqrt(precision), np.zeros(len(values)), solve(values)
    for _ in range(CLIPPINGS if len(values) else 0):
        departs = shift + weight * sd**2
        change = np.sign(departs) * np.maximum(np.abs(departs) - limit * sd, 0) - shift
        step = np.zeros(len(values))
        largest = int((np.abs(change) / sd).argmax())
        if np.abs(change[largest]) <= SETTLED * sd[largest]:
            break
        step[largest] = change[largest]
        shift, weight = shift + step, weight - solve(step)
    return np.asarray(values - shift)


def _with_noise(covariance: np.ndarray, noise: float) -> np.ndarray:
    out = covariance.copy()
    out[np.diag_indices_from(out)] += noise + 1e-9  # keeps the factor positive in floating point
    return out


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which pairs of labels are the same, shape (n, m); texts are compared once, not pair by pair."""
    codes = np.unique(np.concatenate([np.asarray(a, str), np.asarray(b, str)]), return_inverse=True)[1]
    return np.asarray(codes[: len(a), None] == codes[None, len(a) :])


def _alike(part: str, a: Traits, b: Traits) -> np.ndarray:
    if part == "offset":
        return np.ones((len(a), len(b)))
    if part == "shares":
        return np.asarray(a.shares @ b.shares.T)
    if part == "same":
        return _equal(a.graph, b.graph).astype(float)
    squares = (a.features**2).sum(axis=1)[:, None] + (b.features**2).sum(axis=1) - 2 * a.features @ b.features.T
    apart = np.sqrt(np.maximum(squares, 0)) / LENGTH
    return np.asarray((1 + apart) * np.exp(-apart))


def _levels(traits: Traits) -> tuple[str, ...]:
    return (ALL, *traits.levels)


def _covariance(variances: Mapping[tuple[str, str], float], a: Traits, b: Traits) -> np.ndarray:
    together = {level: _equal(a.levels[level], b.levels[level]) for level in a.levels}
    total = np.zeros((len(a), len(b)))
    for part in PARTS:
        strength = np.full(total.shape, variances[part, ALL])
        for level, same in together.items():
            strength += variances[part, level] * same
        total += strength * _alike(part, a, b)
    return total


def _variance(variances: Mapping[tuple[str, str], float], traits: Traits) -> np.ndarray:
    """Diagonal of :func:`_covariance`."""
    of = {part: sum(variances[part, level] for level in _levels(traits)) for part in PARTS}
    return np.asarray(of["offset"] + of["near"] + of["same"] + of["shares"] * (traits.shares**2).sum(axis=1))


def _tune(traits: Traits, left_over: np.ndarray) -> tuple[dict[tuple[str, str], float], float]:
    """Variances of parts at levels, and of the noise: the most probable ones (type-II maximum a posteriori)."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    keys = [(part, level) for part in PARTS for level in _levels(traits)]
    alike = {part: _alike(part, traits, traits) for part in PARTS}
    together = {level: _equal(labels, labels) for level, labels in traits.levels.items()}
    matrices = [alike[part] if level == ALL else alike[part] * together[level] for part, level in keys]
    centre = np.log([PRIOR_SD[part] ** 2 for part, _ in keys] + [NOISE_SD**2])

    def cost(log: np.ndarray) -> tuple[float, np.ndarray]:
        variance, noise = np.exp(log[:-1]), float(np.exp(log[-1]))
        covariance = sum((v * m for v, m in zip(variance, matrices, strict=True)), np.zeros_like(matrices[0]))
        factor = cho_factor(_with_noise(covariance, noise), lower=True)
        weight = cho_solve(factor, left_over)
        slope = cho_solve(factor, np.eye(len(left_over))) - np.outer(weight, weight)
        gradient = [0.5 * v * np.vdot(slope, m) for v, m in zip(variance, matrices, strict=True)]
        gradient.append(0.5 * noise * np.trace(slope))
        prior = (log - centre) / PRIOR_SPREAD
        value = 0.5 * left_over @ weight + np.log(np.diag(factor[0])).sum() + 0.5 * prior @ prior
        return float(value), np.array(gradient) + prior / PRIOR_SPREAD

    found = np.exp(minimize(cost, centre, jac=True, method="L-BFGS-B", options={"maxiter": TUNING_STEPS}).x)
    return dict(zip(keys, found[:-1].tolist(), strict=True)), float(found[-1])
