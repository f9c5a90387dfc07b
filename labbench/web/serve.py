"""The page that a person uses, and what it has to be told: which models there are, and where."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labbench import __version__
from labbench.web import parts
from labbench.web.live import USUAL_WINDOW_S, heard, session
from labbench.web.server import Server, page_files

PAGE = "index.html"
CATALOGUE = "catalogue.json"
USUAL_MODELS = (
    "kws-tiny",
    "kws-small",
    "whisper-micro-encoder",
    "whisper-tiny-encoder",
    "wav2vec2-tiny",
    "clap-tiny-audio",
)


@contextmanager
def serve(
    models: Sequence[str] = USUAL_MODELS,
    *,
    port: int = 0,
    window_s: float = USUAL_WINDOW_S,
    on_result: Callable[[bytes], None] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Iterator[str]:
    """Serve the page on the loopback; yields its address, token included.

    Parameters
    ----------
    models : sequence of str
        What a person may choose from.
    port : int
        0: any free one.
    window_s : float
        Seconds of audio that a model hears at a time.
    on_result : callable, optional
        Takes what the page sends (see :class:`~labbench.web.server.Server`); without it a person saves a file.
    progress : callable
        Told the name of each model before it is made.

    Raises
    ------
    ConfigError
        For an unknown model or one that hears no audio, or if onnxruntime-web cannot be had.
    """
    with Server({**page_files(), **parts.served()}, port=port, on_result=on_result) as server:
        told = [_told(name, window_s, server, progress) for name in models]
        catalogue = {
            "labbench": __version__,
            "onnxruntime_web": parts.VERSION,
            "takes_results": on_result is not None,
            "models": told,
        }
        server.add(CATALOGUE, json.dumps(catalogue).encode())
        yield server.url(PAGE)


def _told(name: str, window_s: float, server: Server, progress: Callable[[str], None]) -> dict[str, Any]:
    from labbench.web.export import export

    progress(name)
    exported = export(name, window_s)
    about = session(name, exported, server, "wasm", 1)
    window = heard(exported)
    return {
        "name": name,
        "task": exported.model.task,
        "megabytes": exported.path.stat().st_size / 1e6,
        "rate": exported.model.rate,
        "window": window,
        "window_s": exported.audio_s,
        "outputs": {key: base64.b64encode(value.tobytes()).decode() for key, value in exported.outputs.items()},
        **about,
    }


@contextmanager
def receiver(path: str | Path, say: Callable[[str], None]) -> Iterator[Callable[[bytes], None]]:
    """Takes what the page sends into a database, as :mod:`labbench.importers.web` would a file; says what came of it.

    What the page sent before and sends once more is there already and changes nothing.
    """
    from labbench.config import ConfigError
    from labbench.store import Store
    from labbench.transfer import import_into

    with Store(path, writable=True) as store:
        one_at_a_time = threading.Lock()

        def take(body: bytes) -> None:
            with one_at_a_time, tempfile.TemporaryDirectory() as folder:
                sent = Path(folder) / "sent.json"
                sent.write_bytes(body)
                try:
                    result = import_into(store, [sent], "labbench-web")
                except ConfigError as error:
                    raise ValueError(str(error).replace(str(sent), "what was sent")) from None
            say(f"{result} ({path})")

        yield take
