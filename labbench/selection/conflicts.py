"""Which requirements cannot be met together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from labbench.words import listed


def smallest_conflict(violated: Iterable[frozenset[str]]) -> tuple[str, ...]:
    """The fewest requirements of which every option misses one; of as few, the first by name.

    Parameters
    ----------
    violated : iterable of frozenset of str
        Of each option the requirements that it misses; those of an option that nothing could let in are left out before.

    Returns
    -------
    tuple of str
        Empty if there are no options, or one of them misses nothing.
    """
    sets = list(violated)
    names = sorted(set().union(*sets))
    for size in range(1, len(names) + 1):
        for chosen in combinations(names, size):
            if all(one & set(chosen) for one in sets):
                return chosen
    return ()


def conflict_sentence(names: tuple[str, ...]) -> str:
    """In words; empty without a conflict."""
    if not names:
        return ""
    if len(names) == 1:
        return f"no option meets {names[0]}"
    both = "both" if len(names) == 2 else f"all {len(names)}"
    return f"{listed(list(names))} contradict each other here: some option meets each of them, none {both}"
