"""A plan as a figure: a bar a device, dealt out among its workloads, and its memory below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.plots.base import LEGEND_CHARACTERS, LEGEND_ROW_IN, MANY, MARK_CHARACTERS, WIDTH_IN, short, wrapped
from labbench.selection.fleet.plan import Assignment

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

HELD, LIMIT = "held for latency", "may be dealt out"
BRIGHT = 0.65  # lightness above which white cannot be read
NAME = 9  # characters of a name in such room
DEVICE_IN = 0.3  # inches of height a device takes
GREYISH = 0.05  # difference of channels below which a colour would be taken for that of the others
LABELLED = 0.16  # share of a device that has room for a name
COLOURS = 9  # workloads with a colour of their own; the smaller ones share one


def plot_fleet(plan: Assignment) -> Figure:
    """What each device in use computes, holds in reserve, and keeps in memory.

    Left, for each workload: strong, the time in which the device computes; pale, the share held so that its calls return in time;
    the line is the share that may be dealt out. Right: memory, as a fraction of the device's. Of more than forty devices, the
    fullest.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    loads: dict[str, float] = {}
    for p in plan.placements:
        loads[p.option.demand] = loads.get(p.option.demand, 0.0) + plan.used([p])[1]
    named = sorted(loads, key=lambda name: -loads[name])
    named = named if len(named) <= COLOURS else named[: COLOURS - 1]
    grey = (0.6, 0.6, 0.6)
    palette = [shade for shade in sns.color_palette("colorblind") if max(shade) - min(shade) > GREYISH]
    colour = dict(zip(named, palette, strict=False))
    devices = list(plan.devices.items())
    if len(devices) > MANY:
        devices = sorted(devices, key=lambda item: -plan.used(item[1])[1])[:MANY]
    labels = [*named, "others", HELD, LIMIT]
    columns = max(1, LEGEND_CHARACTERS // (max(map(len, labels)) + MARK_CHARACTERS))
    height = DEVICE_IN * len(devices) + LEGEND_ROW_IN * -(-len(labels) // columns) + 0.9
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH_IN, height), sharey=True, layout="constrained", width_ratios=(3, 2)
    )
    for place, ((kind, _), items) in enumerate(devices):
        room = plan.fleet.kinds[plan.fleet.kind_index[kind]].memory_bytes
        share = memory = 0.0
        for p in sorted(items, key=lambda p: p.option.demand):
            shade = colour.get(p.option.demand, grey)
            held = plan.used([p])[1]
            left.barh(place, held, left=share, color=[(*shade, 0.35)], edgecolor="white", linewidth=0.8)
            left.barh(place, p.load, left=share, color=[shade], edgecolor="white", linewidth=0.8)
            right.barh(
                place, p.option.memory_bytes / room, left=memory, color=[shade], edgecolor="white", linewidth=0.8
            )
            if held > LABELLED:
                ink = "white" if 0.3 * shade[0] + 0.6 * shade[1] + 0.1 * shade[2] < BRIGHT else "0.2"
                left.text(share + 0.015, place, p.option.demand[:NAME], va="center", fontsize="x-small", color=ink)
            share, memory = share + held, memory + p.option.memory_bytes / room
    left.axvline(plan.fleet.busy, color="tab:red", lw=1, ls=":")
    left.set_yticks(range(len(devices)), [short(f"{kind} {number}") for (kind, number), _ in devices])
    left.invert_yaxis()
    for ax, label in ((left, "% of the device"), (right, "% of its memory")):
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1], ["0", "50", "100"])
        ax.set_xlabel(label)
        ax.grid(False, axis="y")
    handles: list[Artist] = [Patch(color=shade, label=wrapped(name)) for name, shade in colour.items()]
    handles += [Patch(color=grey, label="others")] if len(colour) < len(loads) else []
    handles += [Patch(color=(0.3, 0.3, 0.3, 0.35), label=HELD)]
    handles += [Line2D([], [], color="tab:red", ls=":", lw=1, label=LIMIT)]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)
    return figure
