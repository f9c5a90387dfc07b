"""Latency by labbench's measuring page against a minimal page written by hand, for the same model in the same browser.

Both sides have a browser of their own for each model and open the same session anew for every repeat; then blocks of calls are
timed in turn. The plain page knows nothing of labbench: it loads onnxruntime-web, makes a session, and stands a stopwatch beside a
loop. Its clock is the same, so its blocks are of the same length. A model that a browser fails at is told, and the others go on.

    python benchmarks/web_timing.py [--browser chromium firefox webkitgtk] [--model kws-small ...] [--repeats 3] [--protocol quick]
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from labbench.measure.noise import NoiseProbe
from labbench.measure.protocol import PRESETS, Protocol, preset
from labbench.measure.sampling import Sampling
from labbench.web import parts
from labbench.web.browsers import NAMES, Browser, BrowserError, open_browser
from labbench.web.export import Exported, export
from labbench.web.labels import judge
from labbench.web.server import Server, page_files
from labbench.web.steady import Stream, ratios, sample

GOAL = 0.05
MODELS = ("kws-small", "whisper-micro-decoder", "wav2vec2-tiny", "clap-tiny-audio")
DEADLINE_S = 300.0

HTML = b'<!doctype html><meta charset="utf-8"><title>plain</title><script type="module" src="plain.js"></script>'
SCRIPT = b"""
import * as ort from './ort/ort.wasm.min.mjs';
ort.env.wasm.wasmPaths = new URL('./ort/', location.href).href;
ort.env.wasm.numThreads = 1;
const types = { float32: Float32Array, int64: BigInt64Array };
let session, feeds;
window.plain = {
  async open({ model, inputs, dims }) {
    session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'], freeDimensionOverrides: dims });
    feeds = {};
    for (const [name, { type, shape, data }] of Object.entries(inputs)) {
      const values = new types[type](await (await fetch(data)).arrayBuffer());
      feeds[name] = new ort.Tensor(type, values, shape);
    }
    await session.run(feeds);
  },
  async time({ calls, seconds, room }) {
    const times = [];
    await session.run(feeds);
    const end = performance.now() + seconds * 1000;
    do {
      const start = performance.now();
      for (let i = 0; i < calls; i++) await session.run(feeds);
      times.push((performance.now() - start) / calls / 1000);
    } while (performance.now() < end && times.length < room);
    return times;
  },
};
"""


def harness(browser: Browser, server: Server, made: Exported) -> Any:
    """Open the measuring page; a function that takes samples with it."""
    browser.go(server.url("bench.html"))
    asked = {**made.argument(server), "provider": "wasm", "threads": 1}
    verdict = judge(browser.call("labbench.open", asked, DEADLINE_S), "wasm")
    if verdict.status != "ok":
        raise BrowserError(verdict.reason)

    def take(calls: int, seconds: float, room: int) -> list[float]:
        asked = {"calls": calls, "for_s": seconds, "room": room}
        return browser.call("labbench.samples", asked, DEADLINE_S)["seconds"]

    return take


def plain(browser: Browser, server: Server, made: Exported) -> Any:
    """The same with the page written by hand."""
    browser.go(server.url("plain.html"))
    browser.call("plain.open", made.argument(server), DEADLINE_S)

    def take(calls: int, seconds: float, room: int) -> list[float]:
        return browser.call("plain.time", {"calls": calls, "seconds": seconds, "room": room}, DEADLINE_S)

    return take


def compare(name: str, model: str, repeats: int, protocol: Protocol, server: Server) -> float | None:
    """Prints both sides for a model in a browser; how far the medians are apart, or None if it failed there."""
    made, pairs = export(model), []
    try:
        with open_browser(name) as ours, open_browser(name) as theirs:
            for _ in range(repeats):
                takes = harness(ours, server, made), plain(theirs, server, made)
                step_s = ours.call("labbench.environment")["clock_step_s"]
                pair = [Stream(take, step_s, Sampling(protocol)) for take in takes]
                sample(*pair, NoiseProbe())
                pairs.append(pair)
    except BrowserError as error:
        print(f"{name:<24} {model:<22} no figure: {error}", flush=True)
        return None
    return told(f"{name} {ours.version}", model, pairs)


def told(browser: str, model: str, pairs: list[list[Stream]]) -> float:
    """One line: medians of both sides, their ratio by rounds that met the same machine, the clock's share of a block."""
    mine, other = (median(value for pair in pairs for value in pair[side].sampling.seconds) for side in (0, 1))
    off = median(ratio for one, beside in pairs for ratio in ratios(one.sampling, beside.sampling).values()) - 1
    ours = [one for one, _ in pairs]
    share = max(one.step_s / (one.calls_per_sample * median(one.sampling.seconds)) for one in ours)
    print(
        f"{browser:<24} {model:<22} labbench {mine * 1e3:8.3f} ms, plain {other * 1e3:8.3f} ms, {off:+6.1%} by rounds; "
        f"clock {ours[0].step_s * 1e6:.0f} us, {share:.2%} of a block of {ours[0].calls_per_sample}",
        flush=True,
    )
    return abs(off)


def main() -> None:
    """Compare in every browser; exit status 1 if the medians are apart by more than the goal, or there is none of some model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", nargs="+", default=list(NAMES))
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3, help="sessions of each side (default 3)")
    parser.add_argument("--protocol", choices=list(PRESETS), default="standard")
    options = parser.parse_args()
    with Server({**page_files(), **parts.served(), "plain.html": HTML, "plain.js": SCRIPT}) as server:
        found = [
            compare(name, model, options.repeats, preset(options.protocol), server)
            for name in options.browser
            for model in options.model
        ]
    apart = [off for off in found if off is not None]
    if not apart:
        raise SystemExit("no model gave a figure")
    lost = len(found) - len(apart)
    print(
        f"apart by {median(apart):.1%} in the median of {len(apart)}, {max(apart):.1%} at most (goal {GOAL:.0%} in the "
        f"median); {lost} without a figure"
    )
    raise SystemExit(median(apart) > GOAL or lost > 0)


if __name__ == "__main__":
    main()
