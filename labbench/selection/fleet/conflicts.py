"""Why there is no plan: the requirements that contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np

from labbench.selection.fleet.asked import Requirement, conceivable, describe, possible, requirements, restricted
from labbench.selection.fleet.concessions import Relaxation, concessions
from labbench.selection.fleet.problem import Fleet
from labbench.selection.requirements import SelectionError
from labbench.words import listed

FEW = 14  # requirements of which the smallest set in conflict is looked for
SECONDS = 30.0  # for that, and for leaving out what can be left out
Shown = Literal["smallest", "irreducible", "reduced"]
NAMED = 6  # rates, latencies or replicas of a conflict that are told one by one


@dataclass(frozen=True)
class Conflict:
    """Requirements that no plan keeps together.

    Attributes
    ----------
    fleet : Fleet
    requirements : tuple of Requirement
    shown : str
        What was shown of the set: ``smallest``, no set of fewer is in conflict; ``irreducible``, none of it can be left out;
        ``reduced``, neither in time.
    relaxations : tuple of Relaxation
        What would be enough, nearest first; empty where no single requirement is.
    stranded : tuple of str
        Why the options of each demand that has none left are not allowed; then there is no set.
    """

    fleet: Fleet
    requirements: tuple[Requirement, ...]
    shown: Shown = "smallest"
    relaxations: tuple[Relaxation, ...] = ()
    stranded: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.stranded:
            return " ".join(self.stranded)
        kind = {
            "smallest": "no smaller set does",
            "irreducible": "none of them can be left out",
            "reduced": "perhaps fewer do: time ran out",
        }[self.shown]
        text = f"no plan keeps every requirement: {listed(self._named())} contradict each other ({kind})."
        if not self.relaxations:
            return f"{text} No single one is enough: there are other conflicts, too."
        return f"{text} Enough would be, nearest first: {'; or '.join(r.text for r in self.relaxations)}."

    def _named(self) -> list[str]:
        """The requirements for people; those of very many workloads together."""
        out = []
        for what, plural in (("rate", "rates"), ("latency", "latencies"), ("replicas", "replicas")):
            mine = [r for r in self.requirements if r.what == what]
            if len(mine) > NAMED:
                out.append(f"the {plural} of {len(mine)} workloads ({', '.join(r.of for r in mine)})")
            else:
                out += [describe(self.fleet, r) for r in mine]
        return out + [describe(self.fleet, r) for r in self.requirements if r.what in ("count", "budget", "busy")]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "conflict": [{"what": r.what, "of": r.of, "text": describe(self.fleet, r)} for r in self.requirements],
            "shown": self.shown,
            "relaxations": [
                {"what": r.requirement.what, "of": r.requirement.of, "text": r.text} for r in self.relaxations
            ],
            "stranded": list(self.stranded),
        }


class Infeasible(SelectionError):
    """There is no plan; ``conflict`` says why."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(str(conflict))
        self.conflict = conflict


def explain(fleet: Fleet) -> Conflict:
    """Why a fleet has no plan.

    Of few requirements the smallest set in conflict is found (implicit hitting sets; Ignatiev et al., *Smallest MUS extraction
    with minimal hitting set dualization*, 2015); of many one of which none can be left out (QuickXplain; Junker, 2004), at first
    by the linear program alone, if that tells that there is no plan.

    Raises
    ------
    SelectionError
        If it was not shown in time that there is no plan.
    """
    stranded = tuple(_stranded(fleet))
    if stranded:
        return Conflict(fleet, (), stranded=stranded)
    asked, end = list(requirements(fleet)), perf_counter() + SECONDS
    conflict, quick = _remembered(fleet, possible, end + SECONDS), _remembered(fleet, conceivable, end)
    if not conflict(asked):
        raise SelectionError(
            "no plan was found in time, nor was it shown that there is none; give more time, or more devices"
        )
    found = _smallest(asked, conflict, end) if len(asked) <= FEW else None
    shown: Shown = "reduced" if found is None else "smallest"
    if found is None:
        found = asked
        try:
            found = _irreducible(found, quick) if quick(found) else found
            found, shown = _irreducible(found, conflict), "irreducible"
        except TimeoutError:
            pass
    return Conflict(fleet, tuple(found), shown, concessions(fleet, found))


def _remembered(fleet: Fleet, plan: Callable[[Fleet | None], bool | None], end: float) -> Test:
    """Whether some requirements are in conflict, each set asked once; raises TimeoutError when time is up."""
    told: dict[frozenset[Requirement], bool] = {}

    def conflict(kept: Sequence[Requirement]) -> bool:
        key = frozenset(kept)
        if key not in told:
            if perf_counter() > end:
                raise TimeoutError
            told[key] = plan(restricted(fleet, key)) is False
        return told[key]

    return conflict


def _stranded(fleet: Fleet) -> Iterator[str]:
    """Why nothing can serve a demand, of each for which that is so."""
    served = set(fleet.claims.demand.tolist())
    for place, demand in enumerate(fleet.demands):
        if place not in served:
            why = [f"{o.kind} ({o.name}): {fleet.why_not(o)}" for o in fleet.options if o.demand == demand.name]
            yield f"nothing can serve {demand.name}: {'; '.join(why) or 'it has no option'}."


Test = Callable[[Sequence[Requirement]], bool]


def _irreducible(asked: list[Requirement], conflict: Test) -> list[Requirement]:
    """QuickXplain: a set in conflict of which no member can be left out."""

    def search(kept: list[Requirement], grown: bool, rest: list[Requirement]) -> list[Requirement]:
        if grown and conflict(kept):
            return []
        if len(rest) == 1:
            return rest
        half = len(rest) // 2
        second = search(kept + rest[:half], True, rest[half:])
        first = search(kept + second, bool(second), rest[:half])
        return first + second

    return search([], False, asked)


def _smallest(asked: list[Requirement], conflict: Test, end: float) -> list[Requirement] | None:
    """The smallest set in conflict; ``None`` if time runs out.

    What must be left out for a plan (a correction set) has a member in every conflict. So the smallest set that meets all
    correction sets known is a conflict, the smallest, or it grows to a set without conflict whose rest is one more of them.
    """
    corrections: list[set[int]] = []
    while perf_counter() < end:
        chosen = _hitting(len(asked), corrections)
        kept = [r for r, taken in zip(asked, chosen, strict=True) if taken]
        if conflict(kept):
            return kept
        for requirement in asked:
            if requirement not in kept and not conflict([*kept, requirement]):
                kept.append(requirement)
        corrections.append({i for i, r in enumerate(asked) if r not in kept})
    return None


def _hitting(length: int, sets: list[set[int]]) -> np.ndarray:
    """The fewest of so many items with one of each set at least."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not sets:
        return np.zeros(length, bool)
    table = np.array([[i in items for i in range(length)] for items in sets], float)
    result = milp(
        np.ones(length), integrality=np.ones(length), bounds=Bounds(0, 1), constraints=LinearConstraint(table, 1)
    )
    out: np.ndarray = np.round(result.x) > 0
    return out
