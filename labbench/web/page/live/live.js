/* Live audio through a model, measured: source -> tap.js (audio thread) -> ring.js -> worker.js -> this page.
 *
 *     sound        |<------ hop ------>|
 *     complete     ^ from              ^ complete   picked      done  received
 *                                      |--buffering--|--inference--|--|
 *     end to end   |<----------------------------------------------->|
 *
 * The end to end of a hop counts from its first sample to its result in the page: that it had to be filled is part of what a
 * user waits for. Every moment is taken where it happens: `from` and `complete` by the audio thread, as it has the samples.
 *
 * live(options, {onHop, signal}) -> Promise of a result, options being
 *     context   an AudioContext made in a user's gesture, at the model's rate
 *     source    "signal" (made in the page), "microphone", or an AudioBuffer
 *     model     for model.js: what to open
 *     rate, window, hop   frames a second, of the model's input, and from one run to the next
 *     seconds   how long, unless the signal aborts
 *     slack_s   seconds of audio that may wait, at most; default 1
 *     slowdown  see worker.js; for tests
 *  result: {status: 'ok', source, clock, rate, window, hop, slack_s, seconds, ready, hops: {...arrays of seconds...}, counts,
 *           audio: {base_latency_s, output_latency_s, quantum_s}, track}
 *      or  {status: "unsupported" | "failed", reason, stage, opened}
 */

import { absolute } from '../session.js';
import { QUANTUM, RUNNING, WRITTEN, makeRing } from './ring.js';
import { connect, SourceError } from './source.js';

const SETTLE_S = 1; // of audio before the first hop: browsers start their audio with stutters
const GESTURE_MS = 4000; // a context that may not start yet never says so: after this it is told
const LATEST = 1.25; // times as long as its audio, and so many seconds more, may a run take
const LATEST_S = 10;
const OPEN_MS = 90000; // to load a model and warm it up
const END_MS = 20000; // for the hop in work
const HOP_FIELDS = ['from_s', 'complete_s', 'picked_s', 'done_s', 'received_s', 'features_s', 'model_s'];
const clocks = { fine: () => (performance.timeOrigin + performance.now()) / 1e3, coarse: () => Date.now() / 1e3 };

/** Why there can be no live audio here, in words; null if there can. */
export function obstacle() {
  if (!self.isSecureContext)
    return 'this page is not in a secure context (https or localhost), so the browser gives it neither microphone nor shared memory';
  if (typeof AudioWorkletNode !== 'function') return 'this browser has no AudioWorklet';
  if (typeof SharedArrayBuffer !== 'function')
    return self.crossOriginIsolated
      ? 'this browser has no SharedArrayBuffer'
      : 'this page is not cross-origin isolated, so the browser gives it no SharedArrayBuffer';
  return null;
}

export async function live(options, { onHop = () => {}, signal = null } = {}) {
  const hindered = obstacle();
  if (hindered) return { status: 'unsupported', reason: hindered, stage: 'api' };
  const { context, rate, window, hop, slack_s = 1, seconds } = options;
  if (context.sampleRate !== rate)
    return { status: 'unsupported', reason: `the audio context runs at ${context.sampleRate} Hz, not ${rate}`, stage: 'audio' };
  const ring = makeRing(window + hop + Math.round(slack_s * rate) + QUANTUM);
  const state = new Int32Array(ring.buffer, 0, 3);
  const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  let input = null;
  try {
    const answers = listen(worker);
    worker.postMessage({
      open: { ...options.model, session: absolute(options.model.session) },
      rate,
      window,
      hop,
      ring,
      slowdown: options.slowdown ?? null,
    });
    const opened = await within(answers.opened, OPEN_MS, `the model was not ready after ${OPEN_MS / 1e3} s`, Error);
    if (opened.error)
      return { status: statusOf(opened.error), reason: opened.error.message, ...opened.error, opened: opened.opened };
    await within(
      context.resume(),
      GESTURE_MS,
      'the browser did not start its audio: it wants a click first, or has no audio device',
    );
    const module = context.audioWorklet.addModule(new URL('tap.js', import.meta.url));
    await within(module, GESTURE_MS, 'the browser did not load the audio worklet', Error);
    const tap = new AudioWorkletNode(context, 'labbench-tap', { processorOptions: { ring }, numberOfOutputs: 1 });
    const told = new Promise((resolve) => (tap.port.onmessage = ({ data }) => resolve(data.fine)));
    input = await connect(context, options.source, tap);
    await settled(context);
    const clock = (await within(told, GESTURE_MS, 'the audio worklet did not start', Error)) ? 'fine' : 'coarse';
    const hops = answers.collect(clocks[clock], onHop);
    Atomics.store(state, RUNNING, 1);
    worker.postMessage({ run: { clock } });
    const began = clocks.fine();
    const broken = await Promise.race([duration(state, seconds, rate, signal), answers.broken, stalled(state, context)]);
    Atomics.store(state, RUNNING, 0);
    const elapsed = clocks.fine() - began;
    if (broken) return { status: 'failed', reason: broken.message, stage: 'live', opened: opened.ready.opened };
    const ended = await within(answers.ended, END_MS, 'the worker did not end', Error);
    return {
      status: 'ok', source: input.name, clock, rate, window, hop, slack_s, slowdown: options.slowdown ?? null,
      seconds: elapsed, ready: opened.ready, hops, counts: { ...answers.counts(), ...ended },
      audio: {
        base_latency_s: context.baseLatency ?? null, output_latency_s: outputLatency(context), quantum_s: QUANTUM / rate,
      },
      track: input.track,
    };
  } catch (error) {
    const unsupported = error instanceof SourceError;
    return {
      status: unsupported ? 'unsupported' : 'failed',
      reason: `${error.message ?? error}`,
      stage: unsupported ? 'audio' : 'live',
    };
  } finally {
    Atomics.store(state, RUNNING, 0);
    input?.stop();
    worker.terminate();
  }
}

/** Not of Firefox: to tell it, its page waits for the audio server, now and then for good. */
const outputLatency = (context) => (navigator.userAgent.includes('Firefox') ? null : (context.outputLatency ?? null));

/** What the worker says, as promises, arrays and counts. */
function listen(worker) {
  const hops = Object.fromEntries(HOP_FIELDS.map((name) => [name, []]));
  const counts = { hops: 0, dropped: 0, most_behind: 0, longest_gap_s: 0 };
  let [now, onHop, last] = [clocks.fine, () => {}, null];
  const settle = {};
  const opened = new Promise((resolve) => (settle.opened = resolve));
  const ended = new Promise((resolve) => (settle.ended = resolve));
  const broken = new Promise((resolve) => (settle.broken = resolve));
  worker.onerror = (event) => {
    const error = { stage: 'worker', name: 'Error', message: event.message || 'the worker could not be loaded' };
    settle.opened({ error });
    settle.broken(error);
  };
  worker.onmessage = ({ data }) => {
    if (data.ready) settle.opened(data);
    if (data.error) (settle.opened(data), settle.broken(data.error));
    if (data.ended) {
      if (last !== null) counts.longest_gap_s = Math.max(counts.longest_gap_s, now() - last);
      settle.ended({ ...data.ended, dropped: counts.dropped + data.ended.dropped });
    }
    if (!data.hop) return;
    const hop = { ...data.hop, received_s: now() };
    counts.hops += 1;
    counts.dropped += hop.dropped;
    counts.most_behind = Math.max(counts.most_behind, hop.behind);
    if (last !== null) counts.longest_gap_s = Math.max(counts.longest_gap_s, hop.received_s - last);
    last = hop.received_s;
    if (Number.isFinite(hop.from_s)) for (const name of HOP_FIELDS) hops[name].push(hop[name]);
    onHop(hop, counts);
  };
  const collect = (clock, callback) => (([now, onHop] = [clock, callback]), hops);
  return { opened, ended, broken, collect, counts: () => counts };
}

/** Until so many seconds of audio were written, or the signal aborts, or audio comes so late that it would take far longer. */
async function duration(state, seconds, rate, signal) {
  const late = clocks.fine() + LATEST * seconds + LATEST_S;
  while (!signal?.aborted && Atomics.load(state, WRITTEN) < seconds * rate && clocks.fine() < late) await sleep(20);
}

/** Until the audio has run for a while. */
async function settled(context) {
  const [from, late] = [context.currentTime, clocks.fine() + GESTURE_MS / 1e3 + SETTLE_S];
  while (context.currentTime < from + SETTLE_S) {
    if (clocks.fine() > late) throw new SourceError(`the browser's audio does not run: its context is ${context.state}`);
    await sleep(20);
  }
}

/** A reason as soon as no audio comes. */
async function stalled(state, context) {
  for (let seen = -1; ;) {
    await sleep(GESTURE_MS);
    const written = Atomics.load(state, WRITTEN);
    if (written === seen || written === 0)
      return { message: `no audio came for ${GESTURE_MS / 1e3} s; the audio context is ${context.state}` };
    seen = written;
  }
}

const statusOf = (error) => error.status ?? (error.stage === 'api' ? 'unsupported' : 'failed');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function within(promise, ms, message, Kind = SourceError) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Kind(message)), ms)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
