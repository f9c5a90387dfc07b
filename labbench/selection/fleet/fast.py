"""A good plan for many workloads: prices of time and memory from a linear program, greedy insertion, ruin and recreate.

The relaxation (:mod:`.relaxation`) says which demand should be on which kind, and what a further share of a device, and of
its memory, is worth on each. First replicas go where it would have them, the largest first; what does not fit goes where it
takes least of these, so that whoever has no other place pays for it. Then, again and again, a few devices or demands are taken
out and put anew, and the plan is gone on with unless it is worse by more than a shrinking, random tolerance (Schrimpf et al.,
*Record breaking optimization results using the ruin and recreate principle*, 2000). Up to a thousand options the program of
:mod:`.exact` has the last word, for seconds and until it is within 2 % of its bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from labbench.selection.fleet.exact import Solved
from labbench.selection.fleet.exact import solve as solve_exactly
from labbench.selection.fleet.plan import NOTHING
from labbench.selection.fleet.problem import Fleet
from labbench.selection.fleet.program import Loads, Numbers
from labbench.selection.fleet.relaxation import SMALL, Relaxed, relaxed

ROUNDS = 1500  # of ruin and recreate
PATIENCE = 500  # rounds without a better plan after which there are no more
SECONDS = 4.0  # for them, whatever comes first
LEAST_S = 1.0  # that the program has for bettering a plan, whatever is left
CLOSE_ENOUGH = 0.02  # of the bound, relative: there it stops
UNSERVED = 10.0  # times the bound: what leaving one demand out counts as
TOLERANCE = 0.01  # of the bound: scale of how much worse a plan may be that is gone on with, at the beginning
WORTH_LEFT = 0.8  # of the worth of what is free on devices in use that counts for a plan
OPENING = 0.1  # of the worth of what a new device leaves free that counts against it, at the beginning
MOST_OPENING = 0.3  # and at most later, when it is drawn anew each round
NOISE = (0.0, 0.02, 0.05)  # relative, of costs, drawn anew each round
RUINED = 3  # devices emptied at most, and as many near them; twice as many demands
BY_DEMAND = 0.7  # of the rounds ruin demands, the others devices
ANYWAY = 0.1  # chance, relative to that of the worst, of devices and demands at which nothing is wrong
SMALL_PART = 0.02  # of a demand: so little of it is not put where the linear program would have it


@dataclass
class _State:
    """A plan in the making: what is free of each device there is, what each holds, what is not served yet."""

    share: np.ndarray
    memory: np.ndarray
    loads: list[dict[int, float]]
    held: list[frozenset[int]]  # devices of each demand
    used: np.ndarray
    rest: np.ndarray

    def copy(self) -> _State:
        return replace(
            self, share=self.share.copy(), memory=self.memory.copy(), loads=self.loads.copy(), held=self.held.copy(),
            used=self.used.copy(), rest=self.rest.copy(),
        )  # fmt: skip


def solve(fleet: Fleet, seconds: float, *, seed: int = 0, polish: bool = True) -> Solved:
    """A good plan, or none, and a bound that is infinite if it was shown that there is none."""
    end = perf_counter() + seconds
    bound = relaxed(fleet)
    if np.isinf(bound.value):
        return Solved(None, np.inf)
    loads = Search(fleet, bound, seed).run(seconds=min(SECONDS, seconds / 2))
    if polish and len(fleet.claims.option) <= SMALL:
        left = max(end - perf_counter(), LEAST_S)
        return solve_exactly(Numbers.of(fleet), left, loads, bound=bound.value, gap=CLOSE_ENOUGH)
    return Solved(loads, bound.value)


class Search:
    """Insertion, and ruin and recreate, for one fleet."""

    def __init__(self, fleet: Fleet, bound: Relaxed, seed: int = 0) -> None:
        self.fleet, self.claims, self.bound = fleet, fleet.claims, bound
        self.random = np.random.default_rng(seed)
        counts = [kind.count for kind in fleet.kinds]
        self.kind = np.repeat(np.arange(len(counts)), counts)
        self.open = np.zeros(len(self.kind), bool)
        self.price = fleet.prices
        self.asked = np.array([d.per_second for d in fleet.demands])
        self.replicas = np.array([d.replicas for d in fleet.demands])
        worth = np.maximum(bound.share + bound.memory, NOTHING)
        scale = np.maximum(self.price, worth) / worth  # a kind that the linear program does not use is worth its price
        unused = worth < self.price * 1e-3
        self.per_share = np.where(unused, self.price / 2, bound.share * scale)
        self.per_memory = np.where(unused, self.price / 2, bound.memory * scale)
        self.rows = self._table()
        self._estimates()

    def _table(self) -> np.ndarray:
        """Rows of the claims by demand, variant and kind; -1 where there is none."""
        pair = self.claims.demand * len(self.price) + self.claims.kind
        order = np.argsort(pair, kind="stable")
        variant = np.arange(len(pair)) - np.searchsorted(pair[order], pair[order])
        table = np.full((len(self.asked), int(variant.max(initial=0)) + 1, len(self.price)), -1)
        table[self.claims.demand[order], variant, self.claims.kind[order]] = order
        return table

    def _estimates(self) -> None:
        """What the rest of a demand will cost at least: so much a replica and a request, where the whole of it costs least."""
        c = self.claims
        load = self.asked[c.demand] / c.per_second
        times = np.maximum(np.ceil(load / c.most - NOTHING), self.replicas[c.demand])
        replica = self.per_share[c.kind] * c.floor + self.per_memory[c.kind] * c.memory
        request = (self.per_share[c.kind] / c.slope + c.weight) / c.per_second
        whole = times * replica + request * self.asked[c.demand]
        order = np.lexsort((whole, c.demand))
        found, first = np.unique(c.demand[order], return_index=True)
        best = order[first]
        self.replica, self.request, self.most = (np.zeros(len(self.asked)) for _ in range(3))
        self.replica[found], self.request[found] = replica[best], request[best]
        self.most[found] = (c.most * c.per_second)[best]
        total = np.zeros(len(self.asked))
        total[found] = whole[best]
        self.total = total
        self.order = np.argsort(-total, kind="stable")

    def run(self, rounds: int = ROUNDS, seconds: float = SECONDS) -> Loads | None:
        """The best plan found; ``None`` if none serves everything."""
        end = perf_counter() + seconds
        n = len(self.kind)
        state = _State(
            np.ones(n),
            np.ones(n),
            [{} for _ in range(n)],
            [frozenset() for _ in self.asked],
            np.zeros(n, bool),
            self.asked.copy(),
        )
        self._begin(state)
        best, now = state, state
        best_cost = self._value(state)
        now_smooth = self._smooth(state, best_cost)
        target, last = self.bound.value * (1 + NOTHING), 0
        for turn in range(rounds):
            if best_cost <= target or turn - last > PATIENCE or perf_counter() > end:
                break
            tried = now.copy()
            displaced = self._ruin(tried)
            self._insert(tried, displaced, self.random.choice(NOISE), self.random.random() * MOST_OPENING)
            cost = self._value(tried)
            smooth = self._smooth(tried, cost)
            heat = TOLERANCE * self.bound.value * (1 - turn / rounds)
            if smooth <= now_smooth - heat * np.log(self.random.random()):
                now, now_smooth = tried, smooth
            if cost < best_cost - NOTHING * abs(best_cost):
                best, best_cost, last = tried, cost, turn
        if self._lacking(best).any():
            return None
        return {(int(self.kind[i]), i): device for i, device in enumerate(best.loads) if device}

    def _begin(self, state: _State) -> None:
        """As the linear program would have it, then what that left."""
        load, c = self.bound.load, self.claims
        for kind, count in enumerate(self.bound.devices):
            self.open[np.flatnonzero(self.kind == kind)[: round(count)]] = True
        rows = np.flatnonzero(load * c.per_second > SMALL_PART * self.asked[c.demand])
        size = np.maximum(c.memory[rows], c.floor[rows] + load[rows] / c.slope[rows])
        for row in rows[np.argsort(-size)].tolist():
            demand = int(c.demand[row])
            self._place(state, demand, 0.0, OPENING, only=row)
        self._insert(state, self.order, 0.0, OPENING)
        self.open[:] = False

    def _smooth(self, state: _State, value: float) -> float:
        """The value, less most of the worth of what is free: on the way to a device that can be done without."""
        used = state.used
        kind = self.kind[used]
        left = self.per_share[kind] * state.share[used] + self.per_memory[kind] * state.memory[used]
        return float(value - WORTH_LEFT * left.sum())

    def _lacking(self, state: _State) -> np.ndarray:
        short: np.ndarray = state.rest > NOTHING * self.asked
        return short | (np.fromiter(map(len, state.held), int, len(state.held)) < self.replicas)

    def _value(self, state: _State) -> float:
        """Of the objective, with a penalty for what it lacks."""
        used = self.kind[state.used]
        value = self.price[used].sum()
        if self.fleet.objective == "energy":
            value += sum(self.claims.weight[row] * load for device in state.loads for row, load in device.items())
        lacking = int(self._lacking(state).sum())
        if self.fleet.max_per_hour is not None:
            over = self.fleet.per_hour[used].sum() / self.fleet.max_per_hour - 1
            value += UNSERVED * self.bound.value * (max(over, 0.0) + (over > NOTHING))
        return float(value + lacking * UNSERVED * self.bound.value)

    def _ruin(self, state: _State) -> np.ndarray:
        """Empty some devices, those with much left over sooner; returns the demands that are short now."""
        if self.random.random() < BY_DEMAND:
            return self._ruin_demands(state)
        used = np.flatnonzero(state.used)
        kind = self.kind[used]
        waste = self.per_share[kind] * state.share[used] + self.per_memory[kind] * state.memory[used]
        keys = self.random.random(len(used)) * (waste / max(waste.max(initial=0), NOTHING) + 1.5 * ANYWAY)
        first = used[np.argsort(-keys)[: self.random.integers(1, RUINED + 1)]]
        chosen = set(first.tolist())
        if self.random.random() < 0.5:  # and where else their demands are
            near = {i for d in self._demands(state, first) for i in state.held[d]}
            chosen |= set(self.random.permutation(sorted(near))[:RUINED].tolist())
        for device in chosen:
            self._empty(state, device)
        lacking = np.flatnonzero(self._lacking(state))
        if self.random.random() < 0.5:
            return self.random.permutation(lacking)
        return lacking[np.argsort(np.argsort(self.order)[lacking], kind="stable")]

    def _ruin_demands(self, state: _State) -> np.ndarray:
        """Take some demands out, those that cost most above their estimate sooner; returns those that are short now."""
        cost = np.zeros(len(self.asked))
        c = self.claims
        pairs = [(row, load) for device in state.loads for row, load in device.items()]
        rows, loads = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs])
        k = c.kind[rows]
        spent = self.per_share[k] * (c.floor[rows] + loads / c.slope[rows]) + self.per_memory[k] * c.memory[rows]
        np.add.at(cost, c.demand[rows], spent + c.weight[rows] * loads)
        excess = np.maximum(cost - self.total, 0)
        keys = self.random.random(len(cost)) * (excess / max(excess.max(), NOTHING) + ANYWAY)
        for d in np.argsort(-keys)[: self.random.integers(2, 2 * RUINED + 2)].tolist():
            for device in state.held[d]:
                row = next(r for r in state.loads[device] if c.demand[r] == d)
                load = state.loads[device][row]
                state.rest[d] += load * c.per_second[row]
                state.loads[device] = {r: v for r, v in state.loads[device].items() if r != row}
                state.used[device] = bool(state.loads[device])
                state.share[device] += c.floor[row] + load / c.slope[row]
                state.memory[device] += c.memory[row]
            state.held[d] = frozenset()
        return self.random.permutation(np.flatnonzero(self._lacking(state)))

    def _demands(self, state: _State, devices: np.ndarray) -> list[int]:
        return [int(self.claims.demand[row]) for device in devices for row in state.loads[device]]

    def _empty(self, state: _State, device: int) -> None:
        for row, load in state.loads[device].items():
            demand = self.claims.demand[row]
            state.rest[demand] += load * self.claims.per_second[row]
            state.held[demand] = state.held[demand] - {device}
        state.loads[device] = {}
        state.used[device] = False
        state.share[device] = state.memory[device] = 1.0

    def _insert(self, state: _State, demands: np.ndarray, noise: float, opening: float) -> None:
        for demand in demands.tolist():
            while state.rest[demand] > NOTHING * self.asked[demand] or len(state.held[demand]) < self.replicas[demand]:
                if not self._place(state, demand, noise, opening):
                    break

    def _place(self, state: _State, demand: int, noise: float, opening: float, only: int | None = None) -> bool:
        """One more replica of a demand, where it costs least; False if there is no place."""
        used = state.used | self.open
        closed = np.flatnonzero(~used)
        first = closed[np.diff(self.kind[closed], prepend=-1) > 0]  # closed devices of a kind are all the same
        at = np.concatenate([np.flatnonzero(used), first])
        kind = self.kind[at]
        rows = self.rows[demand][:, kind]
        c = self.claims
        floor, memory, slope, rate = c.floor[rows], c.memory[rows], c.slope[rows], c.per_second[rows]
        share = state.share[at]
        ok = (rows >= 0) & (state.memory[at] >= memory - NOTHING) & (share > floor + NOTHING)
        if only is not None:
            ok &= rows == only
        if state.held[demand]:
            taken_already = np.zeros(len(self.kind), bool)
            taken_already[list(state.held[demand])] = True
            ok &= ~taken_already[at]
        if not ok.any():
            return False
        rest = max(state.rest[demand], 0.0)
        later = max(int(self.replicas[demand]) - len(state.held[demand]), 1)
        load = np.minimum((share - floor) * slope, rest / later / rate)
        if only is not None:
            load = np.minimum(load, self.bound.load[only])
        taken = floor + load / slope
        cost = self.per_share[kind] * taken + self.per_memory[kind] * memory + c.weight[rows] * load
        cost = cost + np.where(used[at], 0.0, opening * np.maximum(self.price[kind] - cost, 0.0))
        after = rest - load * rate
        more = np.where(after > NOTHING * self.asked[demand], np.ceil(after / self.most[demand]), 0)
        cost = cost + np.maximum(more, later - 1) * self.replica[demand] + after * self.request[demand]
        if noise:
            cost = cost * np.exp(noise * self.random.standard_normal(cost.shape))
        v, i = np.unravel_index(int(np.argmin(np.where(ok, cost, np.inf))), cost.shape)
        row, device = int(rows[v, i]), int(at[i])
        state.loads[device] = {**state.loads[device], row: float(load[v, i])}
        state.held[demand] = state.held[demand] | {device}
        state.used[device] = True
        state.share[device] -= taken[v, i]
        state.memory[device] -= memory[v, i]
        state.rest[demand] -= load[v, i] * rate[v, i]
        return True
