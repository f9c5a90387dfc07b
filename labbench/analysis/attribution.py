"""What may have caused a change of speed: what else changed between two records, and in which other cells it did."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.words import count, listed

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

NOTHING = "nothing recorded changed; the machine itself (temperature, neighbours)"
NOT_THE_MACHINE = "nothing recorded changed, and the reference ran on the same machine: what ran itself"
# Packages that a runtime calls while it is timed, or that only it needs to make what it calls.
USED = {
    "eager": ("torch",),
    "compile": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}
EXPORTING = "torch"  # makes what the other runtimes convert
ALWAYS = ("transformers", "labbench", "numpy", "python", "libc")
NEVER = ("pandas", "h5py", "scikit-learn")  # they store and analyse
RECORDED = {"protocol_id": "protocol", "threads": "threads"}  # of the record itself
MEASURED = ("ceilings",)  # parts of a fingerprint that are measurements, which differ every time
IN_USE, OF_MACHINE, UNUSED = 1.0, 0.6, 0.1  # how likely a cause is, before other cells are looked at
MOST_TOLD = 3


def candidates(pairs: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """What changed between the two records of each pair whose speed shifted, the most likely cause first.

    A candidate's ``score`` is how likely it is by itself (the runtime uses the package; it is a fact of the machine; neither)
    times the share of cells with the same change that shifted the same way, (same + 1) / (all + 2). Of a package that the
    runtime uses, only cells on runtimes that use it count: an upgrade of torch cannot be told by cells that run without it.

    Parameters
    ----------
    pairs : DataFrame
        ``shift`` (``slower``, ``faster`` or ``none``), ``runtime``, and ``environment_id``, ``protocol_id``, ``threads`` of the
        later record and, ending in ``_baseline``, of the earlier. All pairs count as evidence.
    environments : mapping
        Environment id to what it was (:meth:`labbench.store.Store.environments`).

    Returns
    -------
    DataFrame
        ``pair`` (label in the index of ``pairs``), ``what``, ``before``, ``after``, ``score``, ``same`` (pairs with this change
        that shifted the same way, this one included) and ``others`` (that did not).
    """
    import pandas as pd

    columns = ["pair", "what", "before", "after", "score", "same", "others"]
    found = _changes(pairs, environments)
    if found.empty:
        return pd.DataFrame(columns=columns)
    found["uses"] = [_uses(runtime, what) for what, runtime in zip(found["what"], found["runtime"], strict=True)]
    same = ["what", "before", "after", "shift"]
    for name, keys in (("all", same[:3]), ("same", same)):
        total = found.groupby(keys)["pair"].transform("size")
        using = found.groupby([*keys, "uses"])["pair"].transform("size")
        found[name] = using.where(found["uses"], total)
    found["others"] = found["all"] - found["same"]
    found = found[found["shift"] != "none"]
    weight = [_weight(what, runtime) for what, runtime in zip(found["what"], found["runtime"], strict=True)]
    found["score"] = np.array(weight) * (found["same"] + 1) / (found["all"] + 2)
    order = found["pair"].map({label: i for i, label in enumerate(pairs.index)})
    found = found.assign(order=order).sort_values(["order", "score", "what"], ascending=[True, False, True])
    return found[columns].reset_index(drop=True)


def _changes(pairs: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """Every change within every pair."""
    import pandas as pd

    @cache
    def between(before: str, after: str) -> list[tuple[str, str, str]]:
        return differences(environments[before], environments[after])

    rows: list[dict[str, Any]] = []
    values = pairs[[f"{name}{end}" for name in ("environment_id", *RECORDED) for end in ("_baseline", "")]].astype(
        object
    )
    values = values.where(values.notna(), None)
    differing = (values.iloc[:, ::2].to_numpy() != values.iloc[:, 1::2].to_numpy()).any(axis=1)
    pairs, values = pairs[differing], values[differing]
    for label, shift, runtime, line in zip(
        pairs.index, pairs["shift"], pairs["runtime"].astype("str"), values.itertuples(index=False), strict=True
    ):
        before, after, *recorded = line
        changed = between(before, after) if before in environments and after in environments and before != after else []
        told = zip(RECORDED.values(), recorded[::2], recorded[1::2], strict=True)
        changed = changed + [
            (name, str(a), str(b)) for name, a, b in told if a is not None and b is not None and a != b
        ]
        rows += [
            {"pair": label, "shift": shift, "runtime": runtime, "what": what, "before": a, "after": b}
            for what, a, b in changed
        ]
    return pd.DataFrame(rows)


def in_time(runs: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Each judged run beside the one before it in its history, with the shift that was found between them, for :func:`candidates`.

    Parameters
    ----------
    runs, points : DataFrame
        From :func:`labbench.analysis.history.runs` and :func:`labbench.analysis.history.change_points`.

    Returns
    -------
    DataFrame
        Indexed like ``points`` where there is a shift; other pairs have negative labels.
    """
    import pandas as pd

    columns = ["environment_id", *RECORDED]
    kept = runs.loc[runs["judged"], ["history", "record_id", "runtime", "reference", *columns]].reset_index(drop=True)
    keys = ["history", "record_id"]
    at = kept[keys].merge(points[keys].assign(point=points.index), how="left")["point"]
    verdicts = points["verdict"].where(
        points["verdict"] != "unconfirmed", np.where(points["ratio"] > 1, "slower", "faster")
    )
    earlier = kept.groupby("history")[columns].shift()
    moved = at.notna().to_numpy()
    before = points[["history"]].assign(record_id=points["record_id_before"]).loc[at[moved].astype(int)]
    facts = before.reset_index(drop=True).merge(kept, how="left", on=keys)
    earlier.loc[moved] = facts[columns].to_numpy()
    pairs = kept.join(earlier.add_suffix("_baseline")).assign(shift=at.map(verdicts).astype(object).fillna("none"))
    labels = pd.Index(np.where(moved, at.fillna(0), -1 - np.arange(len(kept))).astype(int))
    return pairs.set_index(labels)[(kept["history"].duplicated() | moved).to_numpy()]


def with_changes(runs: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """The runs with a column ``changed``: what else is not as in the run before in the same history; empty if nothing."""
    import pandas as pd

    columns = ["environment_id", *RECORDED]
    earlier = runs.groupby("history")[columns].shift().add_suffix("_baseline")
    found = _changes(runs[["runtime", *columns]].join(earlier).assign(shift="none"), environments)
    if found.empty:
        return runs.assign(changed="")
    found = found.assign(
        weight=[_weight(what, runtime) for what, runtime in zip(found["what"], found["runtime"], strict=True)]
    )
    found = found.sort_values("weight", ascending=False, kind="stable")
    texts = found["what"] + " " + found["before"] + " → " + found["after"]
    told = texts.groupby(found["pair"]).agg(", ".join)
    return runs.assign(changed=pd.Series(told, dtype="str").reindex(runs.index).fillna(""))


def causes(pairs: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.Series:
    """The most likely causes of every shift among ``pairs``, in words; labels are those of ``pairs``."""
    import pandas as pd

    shifts = pairs.loc[pairs["shift"] != "none", "shift"]
    found = dict(iter(candidates(pairs, environments).groupby("pair")))
    nothing = pd.DataFrame()
    texts = [told(found.get(label, nothing), shift) for label, shift in shifts.items()]
    if "reference" in pairs:
        beside = pairs.loc[shifts.index, "reference"].notna()
        texts = [
            NOT_THE_MACHINE if there and text == NOTHING else text for text, there in zip(texts, beside, strict=True)
        ]
    return pd.Series(texts, index=shifts.index, dtype="str")


def differences(before: Environment, after: Environment) -> list[tuple[str, str, str]]:
    """What differs between two environments: name, before, after; measurements are left out."""
    one, other = _facts(before), _facts(after)
    names = [*one, *(name for name in other if name not in one)]
    return [
        (name, one.get(name, "absent"), other.get(name, "absent"))
        for name in names
        if one.get(name, "absent") != other.get(name, "absent")
    ]


def _facts(environment: Environment) -> dict[str, str]:
    machine = {name: value for name, value in environment.machine.items() if name not in MEASURED}
    software = {
        name: text for name, text in environment.software.items() if not (name == "system" and "kernel" in machine)
    }
    return {**software, **_flat(machine)}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts by their path: ``cpu.governor``."""
    found: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = str(value)
    return found


def _uses(runtime: str, what: str) -> bool:
    return what in USED.get(runtime, ())


def _weight(what: str, runtime: str) -> float:
    """How likely a change is to be a cause by itself."""
    if _uses(runtime, what) or what in ALWAYS or what in RECORDED.values():
        return IN_USE
    elsewhere = any(what in used for used in USED.values()) and what != EXPORTING
    return UNUSED if elsewhere or what in NEVER else OF_MACHINE


def told(found: pd.DataFrame, shift: str) -> str:
    """The most likely causes of one shift in words: ``torch 2.12 → 2.13 (changed in 8 cells that slowed, 1 that did not)``."""
    if found.empty:
        return NOTHING
    moved = {"slower": "slowed", "faster": "got faster"}[shift]
    parts = [
        f"{r.what} {r.before} → {r.after} (changed in {count(int(r.same), 'cell')} that {moved}, {r.others} that did not)"
        for r in found.head(MOST_TOLD).itertuples()
    ]
    rest = len(found) - len(parts)
    return listed([*parts, *([f"{rest} more"] if rest else [])])
