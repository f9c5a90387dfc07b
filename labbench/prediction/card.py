"""Fitted predictors on disk, each with a card that says what it learnt from, how wrong it was, and what not to ask it::

    data/predictors/NAME/card.json            what it is, for people and programs
                         9f2c….joblib         the predictor itself, named by its SHA-256

**Load a predictor only from people you trust.** A joblib file is a pickle: loading one runs code that its author chose. The
hash in the card shows that the file is the one that the card speaks of, nothing about who wrote both.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, Field, ValidationError

from labbench.cells import Frozen
from labbench.config import ConfigError, unknown_name
from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.features import MEMORY, TOTALS
from labbench.prediction.splits import device_names
from labbench.words import count, listed, percent

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.predictor import Predictor

FOLDER = Path("data/predictors")
CARD = "card.json"
ROOM = "prediction"  # of labbench: where the classes in the file come from
LOCK = ".lock"  # held while a predictor is written
LEFT = r"[0-9a-f]{64}\.(joblib|part)|card\.json\.\d+\.part"  # what is ours to remove
NAME = r"\w[\w.-]*"
PACKAGES = ("scikit-learn", "numpy", "torch")
# Whose classes are in the file: another version may load them and predict otherwise. The source stands for versions between
# releases.
BOUND_TO = ("labbench", "scikit-learn", "source")
LEARNT = ("latency_s", MEMORY, *TOTALS)  # values of a training row that its hash is made of


class Errors(Frozen):
    """How wrong one method was at one quantity, on families that it had not seen; shares and errors are fractions."""

    quantity: str
    method: str
    cells: int = Field(description="rows that were scored")
    refused: int = Field(description="rows that it would not answer")
    families: int
    mape: float | None = Field(description="mean absolute percentage error")
    median_ape: float | None
    within_15: float | None = Field(description="share of rows that are off by at most 15 %")
    coverage: float | None = Field(description="share of rows inside their interval")
    width: float | None = Field(description="median of (high - low) / point")
    fit_s: float | None = Field(description="seconds to fit it")


class Data(Frozen):
    """What a predictor learnt from."""

    sha256: str = Field(description="of ids and values of the training rows, whatever their order and type")
    rows: int
    records: int
    models: int
    families: list[str]
    platforms: list[str]
    machines: list[str]
    devices: list[str] = Field(description="what they call themselves")
    modes: list[str]
    precisions: list[str]
    batch_sizes: tuple[int, int] = Field(description="smallest and largest")


class Card(Frozen):
    """What people should know of a fitted predictor before they believe it."""

    version: Literal[1] = 1
    name: str
    fitted_at: AwareDatetime
    versions: dict[str, str] = Field(description="package to version")
    source_sha256: str = Field(description="of the source of labbench.prediction")
    predictor_sha256: str = Field(description="of the joblib file, which is called by it")
    data: Data
    config: PredictionConfig
    errors: list[Errors] = Field(description="of the predictor and of the baselines; empty: was not evaluated")
    family_errors: dict[str, dict[str, float]] = Field(
        description="quantity to family to the mean absolute percentage error of the predictor when that family was left out"
    )
    limits: list[str] = Field(description="what it must not be asked, and what its answers are not")

    def error(self, quantity: str = "latency_s") -> Errors | None:
        """The predictor's own errors at a quantity, if it was evaluated."""
        from labbench.prediction.evaluate import LABBENCH

        return next((one for one in self.errors if (one.method, one.quantity) == (LABBENCH, quantity)), None)

    @property
    def signature(self) -> str:
        """How records name the predictor that they are of."""
        return f"predictor {self.name} of {self.fitted_at:%Y-%m-%d}, data {self.data.sha256[:12]}"

    def __str__(self) -> str:
        from labbench.prediction.card_report import card_text

        return card_text(self)


@dataclass(frozen=True)
class Saved:
    """A predictor from disk.

    Attributes
    ----------
    predictor : Predictor
    card : Card
    record_ids : frozenset of str
        The records it learnt from.
    """

    predictor: Predictor
    card: Card
    record_ids: frozenset[str]


def save(
    predictor: Predictor,
    name: str | Path,
    frame: pd.DataFrame,
    validated: pd.DataFrame | None = None,
) -> Card:
    """Keep a predictor with its card; whoever reads finds the earlier one or this one, never half of either.

    The predictor is written first, under a name that nobody looks for; the card that names it then replaces the earlier card
    in one step. What is interrupted before leaves the earlier predictor as it was.

    Parameters
    ----------
    predictor : Predictor
        Fitted to ``frame``.
    name : str or path
        What people call it, or a folder (:func:`folder_of`).
    frame : DataFrame
        ``Store.latest()``.
    validated : DataFrame, optional
        Of :func:`labbench.prediction.cross_validate`, families left out: its errors beside the baselines'. Without, the card
        says that nobody looked.

    Returns
    -------
    Card

    Raises
    ------
    PredictionError
        If it is not fitted, or cannot be written.
    ConfigError
        If the name is none.
    """
    import joblib
    from filelock import FileLock

    from labbench.manifest import write_text
    from labbench.prediction.predictor import learnt_rows

    if not predictor.quantities:
        raise PredictionError(
            "the predictor is not fitted, so there is nothing to keep: call fit(frame, environments) first"
        )
    folder = folder_of(name)
    table = learnt_rows(frame, predictor.config, predictor.graphs)
    data = _data(table)
    stream = io.BytesIO()
    joblib.dump({"predictor": predictor, "record_ids": frozenset(table["record_id"].astype("str"))}, stream, compress=3)
    digest = hashlib.sha256(stream.getbuffer()).hexdigest()
    card = Card(
        name=folder.name,
        fitted_at=datetime.now(UTC),
        versions=_versions(),
        source_sha256=source_id(),
        predictor_sha256=digest,
        data=data,
        config=predictor.config,
        errors=[] if validated is None else _errors(validated),
        family_errors={} if validated is None else _family_errors(validated),
        limits=_limits(data, table["group"].nunique(), predictor.config, evaluated=validated is not None),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            try:
                part = folder / f"{digest}.part"
                part.write_bytes(stream.getbuffer())
                part.replace(_file(folder, digest))
                write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
            finally:
                _sweep(folder)
    except OSError as error:
        raise PredictionError(f"cannot keep the predictor in {folder}: {error.strerror}") from None
    return card


def load(name: str | Path) -> Saved:
    """A predictor that :func:`save` kept. Load only what comes from people you trust: it can run any code.

    Its hash is compared with the card's before it is unpickled.

    Parameters
    ----------
    name : str or path
        Its name, or a folder (:func:`folder_of`).

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest one.
    PredictionError
        If it was fitted with other versions of what its classes come from, a file is missing, torn or not the one that the
        card speaks of.
    """
    import joblib

    card = read_card(name)
    again = f"fit it again: `labbench fit --name {name}`"
    here, there = {**_versions(), "source": source_id()}, {**card.versions, "source": card.source_sha256}
    if changed := [one for one in BOUND_TO if here[one] != there.get(one)]:
        told = listed([f"{one} {there.get(one, 'unknown')} (here: {here[one]})" for one in changed])
        raise PredictionError(
            f"predictor {card.name!r} was fitted with {told}, and may predict otherwise here; {again}"
        )
    path = _file(folder_of(name), card.predictor_sha256)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PredictionError(f"cannot read {path}, which {CARD} names: {error.strerror}; {again}") from None
    if hashlib.sha256(data).hexdigest() != card.predictor_sha256:
        raise PredictionError(f"{path} is torn, or not the file that {CARD} speaks of; it was not opened; {again}")
    try:
        content = joblib.load(io.BytesIO(data))
    except (ImportError, AttributeError) as error:  # of a package whose version does not matter otherwise
        raise PredictionError(f"{path} needs what is not installed here ({error}); {again}") from None
    return Saved(content["predictor"], card, content["record_ids"])


def read_card(name: str | Path) -> Card:
    """The card alone, which is harmless to read.

    Raises
    ------
    ConfigError
        If there is no such predictor, naming the nearest one.
    PredictionError
        If the card is damaged or of another version of labbench.
    """
    folder = folder_of(name)
    try:
        return Card.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError:
        if known := saved(folder.parent):
            raise unknown_name("predictor", folder.name, known) from None
        raise ConfigError(f"no predictor in {folder}; `labbench fit --name {name}` makes one") from None
    except OSError as error:
        raise PredictionError(f"cannot read {folder / CARD}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise PredictionError(
            f"{folder / CARD} is damaged or of another version of labbench ({place}: {first['msg']}); "
            f"fit the predictor again: `labbench fit --name {name}`"
        ) from None


def saved(folder: Path = FOLDER) -> list[str]:
    """Names of the predictors in a folder."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CARD}"))


def folder_of(name: str | Path) -> Path:
    """Where a predictor is: ``data/predictors/NAME``, or the folder itself if it is written with a slash.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if isinstance(name, Path) or "/" in name or os.sep in name:
        return Path(name)
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{name!r} is no name for a predictor; use letters, digits, '.', '_' and '-'")
    return FOLDER / name


def data_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of training rows: ids, series and values as numbers, whatever the order of the rows and types of the columns."""
    keys = table[["record_id", "series"]].astype("str").to_numpy()
    known = [name for name in LEARNT if name in table]
    values = table[known].to_numpy(float, na_value=math.nan)
    lines = sorted(
        json.dumps([*key, *(None if math.isnan(value) else value for value in row)])
        for key, row in zip(keys.tolist(), values.tolist(), strict=True)
    )
    return hashlib.sha256("\n".join([json.dumps(known), *lines]).encode()).hexdigest()


def source_id() -> str:
    """SHA-256 of the source that predictors' classes come from."""
    from labbench.manifest import source_sha256

    return source_sha256(ROOM)


def _versions() -> dict[str, str]:
    from labbench import __version__
    from labbench.manifest import environment

    return {"labbench": __version__, **{name: environment()[name] for name in PACKAGES}}


def _data(table: pd.DataFrame) -> Data:
    def names(column: str) -> list[str]:
        return sorted(table[column].astype("str").unique())

    return Data(
        sha256=data_sha256(table),
        rows=len(table),
        records=table["record_id"].nunique(),
        models=table["model"].nunique(),
        families=names("family"),
        platforms=names("platform"),
        machines=names("machine_id"),
        devices=sorted(set(device_names(table))),
        modes=names("mode"),
        precisions=names("precision"),
        batch_sizes=(int(table["batch_size"].min()), int(table["batch_size"].max())),
    )


def _errors(validated: pd.DataFrame) -> list[Errors]:
    from labbench.prediction.evaluate import score

    scores = score(validated)
    rows = scores[[name for name in scores if name in Errors.model_fields]].astype(object)
    return [
        Errors.model_validate({name: None if value != value else value for name, value in row.items()})
        for row in rows.to_dict("records")
    ]


def _family_errors(validated: pd.DataFrame) -> dict[str, dict[str, float]]:
    from labbench.prediction.evaluate import LABBENCH, score

    scores = score(validated[validated["method"] == LABBENCH], by=["group"]).dropna(subset=["mape"])
    return {
        str(quantity): dict(zip(part["group"].astype("str"), part["mape"].astype(float), strict=True))
        for quantity, part in scores.groupby("quantity")
    }


def _limits(data: Data, groups: int, config: PredictionConfig, *, evaluated: bool) -> list[str]:
    """What a predictor of these data must not be asked, in words; ``groups`` families are different ones."""
    covered = percent(min(config.level, groups / (groups + 1)))
    limits = [
        f"It learnt from {listed(data.modes)} in {listed(data.precisions)} on {listed(data.platforms)} of "
        f"{count(len(data.machines), 'machine')}; of other devices it knows what these tell and the ceilings, of other "
        "platforms nothing.",
        f"Beyond {config.domain_factor:g} times the FLOPs, bytes or kernels that were measured on a platform, and of "
        "operator classes that were not, its answers are guesses: they are marked, and the interval is not calibrated.",
        f"Its intervals are for a new family, and hold {covered} of such cells as far as "
        f"{count(groups, 'family', 'families')} can tell.",
        "It predicts the median latency of a warm call and the peak memory above an empty worker: neither the 99th "
        "percentile nor the start nor energy.",
    ]
    return limits if evaluated else [*limits, "Nobody looked how wrong it is: `labbench fit` does, with --evaluate."]


def _file(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.joblib"


def _sweep(folder: Path) -> None:
    """Remove what no card names: the earlier predictor, or what was left of one that came to nothing."""
    named = _named_in(folder / CARD)
    for path in folder.iterdir():
        if re.fullmatch(LEFT, path.name) and path.name != f"{named}.joblib":
            path.unlink(missing_ok=True)


def _named_in(card: Path) -> str | None:
    """The predictor that a card names; None where there is no card, or it is damaged."""
    try:
        named = json.loads(card.read_bytes())["predictor_sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return named if isinstance(named, str) else None
