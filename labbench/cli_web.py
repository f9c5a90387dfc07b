"""Commands for models in browsers: ``labbench web run`` and ``doctor``; for live audio see :mod:`labbench.cli_web_live`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.cli_store import Command, Option

GIVEN = {"browser": "browsers", "provider": "providers", "model": "models", "audio_s": "audio_s", "threads": "threads"}
EXAMPLE = "labbench web run --browser firefox --provider wasm --model kws-small"


def add(command: Command, store: Option, json: Option) -> None:
    """Add the commands to the parser."""
    from labbench import cli_web_live
    from labbench.cli import adder

    web = command(
        "web", _help, "audio models in real browsers: measured, checked, held against native onnxruntime", EXAMPLE
    )
    web.set_defaults(parser=web)
    part = adder(web.add_subparsers(title="commands", metavar="COMMAND"))
    _add_run(part, store, json)
    json(part("doctor", _doctor, "which browsers are here, and how to get those that are not", "labbench web doctor"))
    cli_web_live.add(part, store, json)


def _add_run(command: Command, store: Option, json: Option) -> None:
    run = command(
        "run",
        _run,
        "browsers x providers x models x chunk lengths into a store; what is stored and valid is skipped",
        EXAMPLE,
    )
    run.add_argument("--config", metavar="FILE", help="a web_audio_config.json; options below go before it")
    run.add_argument("--browser", nargs="+", metavar="NAME", help="chromium, firefox, webkitgtk (default: all)")
    run.add_argument(
        "--provider", nargs="+", metavar="NAME", help="wasm, webgpu, webgpu-jsep, webnn-cpu, webnn-gpu, webnn-npu"
    )
    run.add_argument("--threads", nargs="+", type=_threads, metavar="N", help="of wasm; all: every physical core")
    run.add_argument("--model", nargs="+", metavar="NAME", help="e.g. kws-small, whisper-tiny-encoder, wav2vec2-base")
    run.add_argument("--audio-s", nargs="+", type=float, metavar="S", help="chunk lengths (default: each model's own)")
    run.add_argument("--protocol", help="quick, standard or thorough (default: the configuration's)")
    run.add_argument("--no-native", action="store_true", help="do not time native onnxruntime in turn")
    run.add_argument("--rerun", action="store_true", help="measure again what is stored and valid")
    run.add_argument("--retry", action="store_true", help="measure again what is stored as failed")
    run.add_argument("--no-progress", action="store_true", help="say nothing until the table")
    store(run)
    json(run)


def _threads(text: str) -> int | str:
    return text if text == "all" else int(text)


def _help(options: Any) -> int:
    options.parser.print_help()
    return 2


def _run(options: Any) -> int:
    from labbench.cli import print_frame
    from labbench.config import parse, read
    from labbench.store import Store
    from labbench.web.config import WebConfig
    from labbench.web.report import short, table
    from labbench.web.run import WebCampaign

    base = read(WebConfig, options.config) if options.config else WebConfig()
    given = {field: getattr(options, name) for name, field in GIVEN.items() if getattr(options, name) is not None}
    if options.protocol:
        given["protocol"] = options.protocol
    if options.no_native:
        given["native"] = False
    config = parse(WebConfig, base.model_dump() | given, "command line")
    campaign = WebCampaign(config, options.store, rerun=options.rerun, retry=options.retry)
    summary = campaign.run(progress=not (options.no_progress or options.json))
    whole = table(Store(options.store))
    found = whole[whole["cell_id"].isin({cell.id for cell in campaign.cells})]
    print_frame(found if options.json else short(found), options.json)
    if not options.json:
        print(summary)
    return 130 if summary.interrupted else 0


def _doctor(options: Any) -> int:
    from labbench.cli import print_json
    from labbench.web.browsers.find import NAMES, examined
    from labbench.web.parts import found

    told = {name: examined(name) for name in NAMES} | {"onnxruntime-web": found() or "ready"}
    if options.json:
        print_json(told)
    else:
        print("\n".join(f"{name:<16} {text}" for name, text in told.items()))
    return 0
