"""Commands for live audio in browsers: ``labbench web live``, ``serve`` and ``import``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.cli_store import Command, Option
    from labbench.records import Record

# Written out, not read from labbench.web: --help must not wait for pydantic. A test holds them together.
BROWSERS = ("chromium", "firefox", "webkitgtk")
LOADS = ("none", "one", "all")
PHONE = """\
The page is served on this machine's loopback only, and browsers give the microphone to nobody else than localhost and https.
To measure a phone, lend it the port: `adb reverse tcp:{port} tcp:{port}` (Android, USB debugging), or from another computer
`ssh -L {port}:127.0.0.1:{port} THIS_MACHINE`; then open the same address there."""


def add(command: Command, store: Option, json: Option) -> None:
    """Add the commands beside those of :mod:`labbench.cli_web`."""
    _add_live(command, store, json)
    serve = command(
        "serve",
        _serve,
        "the page for people: their browser, their microphone, their phone",
        "labbench web serve",
    )
    serve.add_argument("--model", nargs="+", metavar="NAME", help="models to choose from (default: small ones)")
    serve.add_argument(
        "--window-s", type=float, default=1.0, metavar="S", help="audio that a model hears (default: %(default)g)"
    )
    serve.add_argument("--port", type=int, default=0, help="default: any free one")
    serve.add_argument("--store", metavar="FILE", help="a database that takes what the page sends (default: none)")
    imported = command(
        "import",
        _import,
        "results that a person saved from the page",
        "labbench web import phone.json --store data/study.h5",
    )
    imported.add_argument("files", nargs="+", metavar="FILE", help="JSON that the page saved")
    store(imported)


def _add_live(command: Command, store: Option, json: Option) -> None:
    live = command(
        "live", _live, "live audio through a model: end-to-end latency, drop-outs, what keeps up",
        "labbench web live --browser firefox --model kws-small --hop-ms 100 50 --load none all",
    )  # fmt: skip
    live.add_argument("--browser", nargs="+", default=list(BROWSERS), choices=BROWSERS, help="default: all")
    live.add_argument("--model", nargs="+", default=["kws-small"], metavar="NAME", help="default: kws-small")
    live.add_argument("--provider", default="wasm", help="wasm, webgpu, webnn-cpu, ... (default: %(default)s)")
    live.add_argument("--threads", type=int, default=1, help="of wasm (default: %(default)s)")
    live.add_argument(
        "--hop-ms", nargs="+", type=float, default=[100.0], metavar="MS", help="a result each (default: 100)"
    )
    live.add_argument(
        "--shortest", action="store_true", help="find the shortest hop that keeps up, instead of --hop-ms"
    )
    live.add_argument("--window-s", type=float, metavar="S", help="audio that the model hears (default: 1 s at most)")
    live.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of audio, a run (default: %(default)g)")
    live.add_argument(
        "--load", nargs="+", choices=LOADS, default=["none"], help="cores kept busy meanwhile (default: none)"
    )
    live.add_argument("--source", choices=("signal", "microphone"), default="signal", help="default: %(default)s")
    live.add_argument("--audio", metavar="WAV", help="what Chromium's microphone hears (with --source microphone)")
    store(live)
    json(live)


def _live(options: Any) -> int:
    from pathlib import Path

    from labbench.cli import print_frame, print_json
    from labbench.config import parse
    from labbench.store import Store
    from labbench.web.live import Live
    from labbench.web.live_report import for_people, live_sentence, live_table
    from labbench.web.live_run import LiveRuns

    audio = Path(options.audio).resolve() if options.audio else None
    fields = {"provider": options.provider, "threads": options.threads, "seconds": options.seconds}
    fields |= {"source": options.source, "window_s": options.window_s}
    wishes = [
        parse(Live, {"browser": browser, "model": model, "load": load, "hop_s": hop / 1e3, **fields}, "command line")
        for browser in options.browser
        for load in options.load
        for model in options.model
        for hop in (options.hop_ms[:1] if options.shortest else options.hop_ms)
    ]
    found: list[Record] = []

    def keep(record: Record) -> None:
        found.append(record)
        if not options.json:
            print(f"{record.cell.workload.task}: {record}", flush=True)

    with LiveRuns(audio_file=audio, store=options.store, keep=keep) as runs:
        if options.shortest:
            said = runs.searched(wishes)
        else:
            runs.run(wishes)
            said = []
    if options.json:
        print_json([record.model_dump(mode="json", exclude={"series": {"__all__": {"samples"}}}) for record in found])
        return 0
    table = live_table(Store(options.store))
    table = table[table["record_id"].isin([record.record_id for record in found])]
    print_frame(for_people(table), as_json=False)
    print("\n".join([live_sentence(table), *said]))
    return 0


def _serve(options: Any) -> int:
    import contextlib
    import threading
    from urllib.parse import urlsplit

    from labbench.web.serve import USUAL_MODELS, receiver, serve

    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(receiver(options.store, print)) if options.store else None
        models = options.model or USUAL_MODELS
        url = stack.enter_context(
            serve(
                models,
                port=options.port,
                window_s=options.window_s,
                on_result=taken,
                progress=lambda name: print(f"preparing {name}"),
            )
        )
        print(f"\n{url}\n\n{PHONE.format(port=urlsplit(url).port)}\n\nCtrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


def _import(options: Any) -> int:
    from labbench.store import Store
    from labbench.transfer import import_into

    with Store(options.store, writable=True) as store:
        result = import_into(store, options.files, "labbench-web")
    print(f"{result} ({options.store})")
    return 0
