"""The models that browsers run, by name: parts of the zoo's audio families, and a small convnet for keywords. Loads no framework.

A Whisper is two models, as in every browser application: the encoder runs once a chunk, the decoder once a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WHISPER_MEL = {
    "sample_rate": 16_000, "n_fft": 400, "hop": 160, "mels": 80, "log": "whisper", "center": True, "drop_last": True,
}  # fmt: skip
CLAP_MEL = {
    "sample_rate": 48_000, "n_fft": 1024, "hop": 480, "mels": 64, "f_max": 14_000, "log": "db", "center": True,
    "time_first": True,
}  # fmt: skip
KEYWORD_MEL = {"sample_rate": 16_000, "n_fft": 400, "hop": 160, "mels": 40, "log": "ln", "center": False}


@dataclass(frozen=True)
class WebModel:
    """One model that browsers run.

    Attributes
    ----------
    name : str
    family, size : str
        Where its configuration is: a family of the zoo and one of its sizes, or ``kws``.
    part : str
        ``encoder`` or ``decoder`` of Whisper, ``whole``, or ``audio`` of CLAP.
    task : str
    audio_s : float
        Default length of a chunk, seconds.
    rate : int
        Samples a second of the audio that it hears, Hz.
    features : mapping or None
        Settings of its log-mel (page/mel.js); None: it takes the samples themselves, or no audio at all.
    unit : str
        What its throughput counts: ``audio_s``, or ``tokens`` for a decoder's step.
    classes : str or None
        Output whose largest value along the last axis decides something, so that it must be the same one everywhere.
    any_length : bool
        Whether one exported file takes chunks of every length.
    """

    name: str
    family: str
    size: str
    part: str
    task: str
    audio_s: float
    rate: int = 16_000
    features: Mapping[str, Any] | None = None
    unit: str = "audio_s"
    classes: str | None = None
    any_length: bool = False


def _declared() -> list[WebModel]:
    asr, zero_shot = "automatic-speech-recognition", "zero-shot-audio-classification"
    found = []
    for size in ("micro", "tiny", "base", "small"):
        whisper = ("whisper", size)
        found += [
            WebModel(f"whisper-{size}-encoder", *whisper, "encoder", asr, 30.0, features=WHISPER_MEL),
            WebModel(f"whisper-{size}-decoder", *whisper, "decoder", asr, 30.0, unit="tokens", classes="logits"),
        ]
    for size in ("tiny", "base"):
        found.append(
            WebModel(f"wav2vec2-{size}", "wav2vec2", size, "whole", asr, 1.0, classes="logits", any_length=True)
        )
    for size in ("tiny", "htsat"):
        found.append(
            WebModel(f"clap-{size}-audio", "clap", size, "audio", zero_shot, 10.0, rate=48_000, features=CLAP_MEL)
        )
    for size in ("tiny", "small"):
        keywords = WebModel(
            f"kws-{size}", "kws", size, "whole", "audio-classification", 1.0,
            features=KEYWORD_MEL, classes="logits", any_length=True,
        )  # fmt: skip
        found.append(keywords)
    return found


_MODELS = {model.name: model for model in _declared()}
SMALLEST = (
    "kws-tiny",
    "whisper-micro-encoder",
    "whisper-micro-decoder",
    "wav2vec2-tiny",
    "clap-tiny-audio",
)  # for tests


def models() -> list[str]:
    """Every name, smallest first within a family."""
    return list(_MODELS)


def find(name: str) -> WebModel:
    """The model of a name; raises ConfigError for an unknown one, with the nearest."""
    from labbench.config import unknown_name

    if name not in _MODELS:
        raise unknown_name("browser model", name, _MODELS)
    return _MODELS[name]
