"""Names that tell rows apart: a platform or model alone does not where several machines, precisions or sizes are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# What a name leaves open: the column, within which others it must differ to be told (None: it always is), and how it is told.
OPEN = tuple[tuple[str, tuple[str, ...] | None, str], ...]
OF_PLACE: OPEN = (
    ("precision", (), "{}"),
    ("device_name", ("platform",), "{}"),
    ("machine_id", ("platform", "device_name"), "machine {:.6}"),
)
OF_WORK: OPEN = (
    ("task", ("model", "mode"), "{}"),
    ("seq_len", ("model", "mode"), "{} tokens"),
    ("image_size", ("model", "mode"), "{} px"),
    ("frames", ("model", "mode"), "{} frames"),
    ("audio_s", ("model", "mode"), "{:g} s of audio"),
    ("kv_cache", None, "uncached"),  # false or not given: with a cache is the default
    ("variant", None, "{}"),
)
SIZES = ("task", "seq_len", "image_size", "frames", "audio_s", "kv_cache", "variant")
_OF_A_SERIES = ("model", "mode", "series", *SIZES)
OF_SERIES: OPEN = (*OF_WORK, ("part", None, "{}"), ("batch_size", _OF_A_SERIES, "batch {}"))
PARTS = (
    "device",
    "runtime",
    "threads",
    "world_size",
    "memory_format",
    "loader_workers",
)  # in which `platform` is spelt out
OF_A_HOST = ("hostname", "machine_id", "device_name")  # whoever compares these wants to see neither of the others told
# What must agree for two rows to be the same work on the same input.
WORK = ("model", "task", "mode", "series", "batch_size", *SIZES[1:])


def place(frame: pd.DataFrame) -> pd.Series:
    """The platform of each row, e.g. ``cuda:0/eager · bf16 · RTX 3090``.

    Precision is told if rows differ in it, device and machine if one platform has several.
    """
    return _told(frame, "platform", OF_PLACE)


def work(frame: pd.DataFrame) -> pd.Series:
    """The model of each row, with the task and the size of its input if one model has several: ``vit-base · 384 px``."""
    return _told(frame, "model", OF_WORK)


def series(frame: pd.DataFrame) -> pd.Series:
    """The work of each row with its series and batch size as far as there are several, e.g. ``gpt2 · decode · batch 8``."""
    return _told(_with_part(frame), "model", OF_SERIES)


def compared(frame: pd.DataFrame, by: str) -> pd.Series:
    """What each comparison is about: the work, its batch size and place as far as several are compared, but not ``by``.

    E.g. ``vit-base · 384 px · batch 8``, or ``gpt2 · decode``.
    """
    here = (*_OF_A_SERIES, "batch_size")
    places: OPEN = tuple((name, here, f"{name.replace('_', ' ')} {{}}") for name in PARTS if name in frame)
    if by not in PARTS:
        places = () if by == "platform" else (("platform", here, "{}"),)
    places += OF_PLACE[:1] if by in OF_A_HOST else OF_PLACE
    return _told(_with_part(frame), "model", tuple(one for one in (*OF_SERIES, *places) if one[0] != by))


def _with_part(frame: pd.DataFrame) -> pd.DataFrame:
    """With a column ``part``: the series where it says something."""
    return frame.assign(part=frame["series"].astype(object).where(frame["series"] != "forward"))


def side(frame: pd.DataFrame, by: Literal["platform", "model"]) -> pd.Series:
    """The platform (or model) of each row with all that differs among the rows of one model (or platform)."""
    return _told(frame, by, OF_PLACE + OF_WORK)


def _told(frame: pd.DataFrame, base: str, columns: OPEN) -> pd.Series:
    text = frame[base].astype("str")
    for name, within, form in columns:
        told = frame[name].notna()
        if within is not None:
            values = frame[name].astype("str").where(told)
            groups = [frame[key].astype("str") for key in within] or np.zeros(len(frame))
            told &= values.groupby(groups, dropna=False).transform("nunique") > 1
        if told.any():
            text = text.mask(told, text + " · " + frame.loc[told, name].astype(object).map(form.format))
    return text


def usual_batch(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each model, input size and mode, the rows at the batch size that most platforms have; of equals, the smallest.

    In a study that measured batch size 1 everywhere these are its rows; imported results often have other sizes, model by
    model.
    """
    rows = frame[frame["latency_s"].notna()]
    keyed = rows[["mode", "batch_size"]].assign(work=work(rows), place=place(rows))
    keys = ["work", "mode", "batch_size"]
    places = keyed.groupby(keys, observed=True)["place"].nunique().reset_index()
    places = places.sort_values(["place", "batch_size"], ascending=[False, True], kind="stable")
    usual = places.drop_duplicates(["work", "mode"]).set_index(keys).index
    return rows[keyed.set_index(keys).index.isin(usual)]
