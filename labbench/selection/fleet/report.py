"""A plan as text that can be pasted into a ticket."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from labbench.selection.fleet.failures import Failure, chains, failures, headroom
from labbench.selection.fleet.plan import Assignment, Placement
from labbench.words import count, listed, number, percent, seconds, size

if TYPE_CHECKING:
    import pandas as pd

    from labbench.selection.fallback import Fallback

MOST = 12  # failures of single devices that are told one by one


def headline(plan: Assignment) -> str:
    """The plan in a sentence or two."""
    kinds = Counter(kind for kind, _ in plan.devices)
    what = listed([f"{times} {name}" for name, times in kinds.items()])
    text = f"{what} {'carries' if len(plan.devices) == 1 else 'carry'} {count(len(plan.fleet.demands), 'workload')}"
    if plan.per_hour == plan.per_hour:
        text += f" for {number(plan.per_hour)} {plan.fleet.currency} an hour"
    if plan.fleet.objective == "energy":
        text += f" at {number(plan.value)} W"
    aim = {"cost": "costs less", "devices": "needs fewer devices", "energy": "takes less energy"}[plan.fleet.objective]
    sure = f"No plan {aim}." if plan.gap == 0 else f"A better plan could save {percent(plan.gap)} at most."
    return f"{text}. {sure}"


def text(plan: Assignment) -> str:
    """All of it: what runs where, how busy, head-room, what if something fails, fallbacks, what was not allowed."""
    more = headroom(plan)
    lines = [headline(plan), ""]
    for (kind, device), items in plan.devices.items():
        busy, held, memory = plan.used(items)
        room = plan.fleet.kinds[plan.fleet.kind_index[kind]].memory_bytes
        lines.append(
            f"{kind} {device}: {percent(busy)} busy, {percent(held)} dealt out, {size(memory)} of {size(room)} of memory"
        )
        lines += [f"    {_replica(plan, p)}" for p in items]
    idle = {k.name: k.count - sum(name == k.name for name, _ in plan.devices) for k in plan.fleet.kinds}
    spare = [f"{times} {name}" for name, times in idle.items() if times]
    lines += ["", f"Not in use: {listed(spare)}." if spare else "Every device is in use."]
    lines.append(f"Head-room: all rates may rise by {percent(max(more, 0.0))} with the replicas where they are.")
    lines += ["", "If something fails and its requests go to the replicas that are left:"]
    lines += [f"    {line}" for line in _told(failures(plan))]
    lines += ["", "If an option fails for good, next is:"]
    lines += [f"    {name}: {_chain(chain)}" for name, chain in chains(plan).items()]
    excluded = [(o, reason) for o in plan.fleet.options if (reason := plan.fleet.why_not(o)) is not None]
    if excluded:
        lines += ["", "Not allowed:"]
        lines += [f"    {o.demand} on {o.kind} ({o.name}): {reason}" for o, reason in excluded]
    return "\n".join(lines)


def _replica(plan: Assignment, p: Placement) -> str:
    asked = plan.fleet.demands[plan.fleet.demand_index[p.option.demand]]
    limit = f", p{asked.latency_percentile} ≤ {seconds(asked.max_latency_s)}" if asked.max_latency_s is not None else ""
    source = "" if p.option.known == "measured" else f", {p.option.known}"
    rate = f"{number(p.per_second)}/s" + ("" if p.per_second > 0 else " (stand-by)")
    return f"{p.option.demand}: {rate} by {p.option.name}, {percent(p.load)} busy{limit}{source}"


def _told(found: tuple[Failure, ...]) -> list[str]:
    """Failures of devices together where there are many or all go well; of kinds and domains one by one."""
    devices, rest = [f for f in found if f.what == "device"], [f for f in found if f.what != "device"]
    bad = [f for f in devices if f.served]
    lines = []
    if devices and not bad:
        lines.append("any one device: the rest carries everything")
    elif devices:
        fine = len(devices) - len(bad)
        lines += [f"any one of {count(fine, 'device')}: the rest carries everything"] if fine else []
        lines += [_failure(f) for f in bad[:MOST]]
        lines += (
            [f"and {count(len(bad) - MOST, 'device')} more without which something is short"] if len(bad) > MOST else []
        )
    return lines + [_failure(f) for f in rest]


def _failure(found: Failure) -> str:
    return f"{_name(found)}: {_short(found) if found.served else 'the rest carries everything'}"


def _name(found: Failure) -> str:
    return found.name if found.what == "device" else f"{found.what} {found.name}"


def _short(found: Failure) -> str:
    short = sorted(found.served.items(), key=lambda item: item[1])
    told = [f"{demand} at {percent(left)}" if left > 0 else f"{demand} stops" for demand, left in short[:MOST]]
    told += [f"{len(short) - MOST} more"] if len(short) > MOST else []
    return listed(told)


def _chain(chain: tuple[Fallback, ...]) -> str:
    steps = []
    for link in chain:
        option: Any = link.option["option"]
        shared = f" (shares {listed(list(link.shares))})" if link.shares else ""
        steps.append(f"{option.kind} {option.name}{shared}")
    return " → ".join(steps) or "nothing: it has no other option"


def to_dict(plan: Assignment) -> dict[str, Any]:
    """The plan with its head-room, failures and fallbacks as plain values, SI units."""
    return {
        **plan.to_dict(),
        "headroom": headroom(plan),
        "failures": [{"what": f.what, "name": f.name, "served": f.served} for f in failures(plan)],
        "fallbacks": {
            name: [
                {"kind": link.option["option"].kind, "option": link.option["option"].name, "shares": list(link.shares)}
                for link in chain
            ]
            for name, chain in chains(plan).items()
        },
        "excluded": [
            {"demand": o.demand, "kind": o.kind, "option": o.name, "reason": reason}
            for o in plan.fleet.options
            if (reason := plan.fleet.why_not(o)) is not None
        ],
    }


def replica_table(plan: Assignment) -> pd.DataFrame:
    """What runs where: a row a replica, in human units."""
    import pandas as pd

    rows = []
    for (kind, device), items in plan.devices.items():
        for p in items:
            _, held, memory = plan.used([p])
            rows.append(
                {
                    "device": f"{kind} {device}",
                    "workload": p.option.demand,
                    "by": p.option.name,
                    "a second": number(p.per_second) if p.per_second > 0 else "stand-by",
                    "busy": percent(p.load),
                    "dealt out": percent(held),
                    "memory": size(memory),
                    "known by": p.option.known,
                }
            )
    return pd.DataFrame(rows)


def failure_table(plan: Assignment) -> pd.DataFrame:
    """What is short where something fails; what leaves enough is one row."""
    import pandas as pd

    found = failures(plan)
    rows = [{"fails": _name(f), "what is short": _short(f)} for f in found if f.served]
    fine = [_name(f) for f in found if not f.served]
    if fine:
        name = fine[0] if len(fine) == 1 else f"any one of {len(fine)} others"
        rows.append({"fails": name, "what is short": "nothing: the rest carries everything"})
    return pd.DataFrame(rows, columns=["fails", "what is short"])


def chain_table(plan: Assignment) -> pd.DataFrame:
    """Of each workload what to go to next, the options that share no failure domain first."""
    import pandas as pd

    return pd.DataFrame([{"workload": name, "next": _chain(chain)} for name, chain in chains(plan).items()])
