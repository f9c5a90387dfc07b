"""What to use when the choice fails: alternatives, in order, that do not fail together with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fallback:
    """An alternative, and what it has in common with those before it.

    Attributes
    ----------
    option : mapping
    shares : tuple of str
        Failure domains that the choice or an earlier alternative is in, too, e.g. ``zone a``; empty where there are none.
    """

    option: Mapping[str, Any]
    shares: tuple[str, ...]


def fallbacks(options: Sequence[Mapping[str, Any]], domains: Sequence[str]) -> tuple[Fallback, ...]:
    """The alternatives to the first of some options.

    Next is whichever shares the fewest failure domains with all that come before it, the better one where several share as few.
    One that is in the same domains as one before it is left out: it would fail with it.

    Parameters
    ----------
    options : sequence of mapping
        Best first; the first is the choice.
    domains : sequence of str
        Keys whose values are what options fail with, e.g. ``machine_id``, ``runtime``, ``zone``. One without a value for a key
        shares nothing by it.
    """
    labels = [{name: option[name] for name in domains if _known(option.get(name))} for option in options]
    chain, out = labels[:1], []
    left = list(range(1, len(options)))
    while left := [i for i in left if labels[i] not in chain]:
        common = {
            i: [name for name in labels[i] if any(labels[i][name] == before.get(name) for before in chain)]
            for i in left
        }
        best = min(left, key=lambda i: len(common[i]))
        out.append(Fallback(options[best], tuple(f"{name} {labels[best][name]}" for name in common[best])))
        chain.append(labels[best])
    return tuple(out)


def _known(value: Any) -> bool:
    return value is not None and value == value  # not NaN
