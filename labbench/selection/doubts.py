"""What to measure to become sure: the cells on which a choice hangs, as commands to paste."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from labbench.selection.chances import likely

DOUBTFUL = 0.05  # chance from which on an option counts as possible, and short of 1 by which it is not sure
SETTLED = 1 - DOUBTFUL
MOST = 5  # cells named for a question, the likeliest first


@dataclass(frozen=True)
class Open:
    """A cell whose measurement may change or settle a choice.

    Attributes
    ----------
    option : str
    why : str
    chance : float
        That it is the best, or of an excluded option that it meets the limits; NaN where nothing tells.
    command : str or None
        ``labbench run ...``; None where the cell cannot be named.
    """

    option: str
    why: str
    chance: float
    command: str | None

    def __str__(self) -> str:
        return f"{self.command or 'measure it'} ({self.option}: {self.why})"


def to_measure(
    ranked: list[dict[str, Any]], excluded: tuple[tuple[dict[str, Any], tuple[Any, ...]], ...], tied: bool
) -> tuple[Open, ...]:
    """Cells on which one choice hangs: options only predicted that may be the best or may meet the limits, and close measurements.

    Parameters
    ----------
    ranked : list of dict
        Options allowed, the choice first.
    excluded : tuple of (dict, tuple of Violation)
    tied : bool
        Whether the first cannot be told from others.
    """
    found = []
    for option in ranked:
        chance = float(option["chance_best"])
        if not DOUBTFUL < chance < SETTLED:
            continue
        if option["predicted"]:
            found.append(
                Open(option["option"], f"only predicted, the best with {likely(chance)}", chance, command(option))
            )
        elif tied and option["tied"]:
            text = f"measured too loosely to tell, the best with {likely(chance)}"
            again = command(option, " --rerun --protocol thorough")
            found.append(Open(option["option"], text, chance, again))
    for option, violations in excluded:
        if not option["predicted"] or option["status"] != "ok":
            continue
        if {one.requirement for one in violations} == {"prediction"}:
            text = "no ground to choose is known: it was never measured like this"
            found.append(Open(option["option"], text, math.nan, command(option)))
        elif all(one.needed is not None for one in violations) and option["chance_of_limits"] > DOUBTFUL:
            chance = float(option["chance_of_limits"])
            text = f"only predicted, meets the limits with {likely(chance, 'at least ')}"
            found.append(Open(option["option"], text, chance, command(option)))
    return tuple(sorted(found, key=lambda one: (math.isnan(one.chance), -one.chance)))[:MOST]


def command(option: dict[str, Any], more: str = "") -> str | None:
    """The command line that measures an option, on its machine."""
    import pandas as pd

    from labbench.cells import Cell
    from labbench.config import ConfigError

    names = ("model", "task", "mode", "batch_size", "precision", "seq_len", "image_size", "frames", "audio_s", "device")
    fields = {name: option[name] for name in (*names, "runtime", "memory_format")} | {
        "threads": option["threads_asked"]
    }
    values = {name: value for name, value in fields.items() if not pd.isna(value)}
    try:
        cell = Cell.of(
            **{name: value.item() if hasattr(value, "item") else _whole(value) for name, value in values.items()}
        )
    except ConfigError:
        return None
    return cell.command + more


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
