/* The measuring page, as Python sees it: window.labbench.NAME(argument) -> Promise of what JSON can say.
 *
 * Times are in seconds, sizes in bytes, arrays base64 of little-endian raw values. A promise is rejected only for a mistake of
 * the caller's; what a browser or the runtime refuses is the field `error` of an answer (see `open`), for labbench/web/labels.py.
 * URLs are relative to this page (server.add("models/x.onnx", path) -> "models/x.onnx").
 *
 * environment()                         -> {isolated, shared_memory, cores, user_agent, clock_step_s, gpu, ml, memory_api}
 *     clock_step_s: smallest step of performance.now, measured. gpu: {adapter: {name, vendor, architecture, device,
 *     description, fallback, software} | null, error: text | null}. ml: {cpu, gpu, npu: null | the browser's words}.
 *
 * open({model, inputs, provider, threads, dims, where})
 *     One session; a second `open` closes the first.
 *     model: URL. inputs: {name: {type: "float32" | "int64", shape, data: URL}} (labbench.web.export: `Exported.argument`).
 *     provider: "wasm" | "webgpu" | "webgpu-jsep" | "webnn-cpu" | "webnn-gpu" | "webnn-npu"; exactly that one is asked for, and
 *     the runtime is told to refuse rather than place a node on the CPU. webgpu: the native provider (what the package's
 *     "onnxruntime-web/webgpu" gives), webgpu-jsep: the older one of "onnxruntime-web/all".
 *     threads: of wasm, default 1. dims: {symbolic dimension: size}. where: "page" (the main thread, default) | "worker".
 *  -> {phases: {runtime_s, download_s, session_s, first_run_s},   runtime_s: loading onnxruntime-web itself, its wasm excepted
 *      provider, where, threads: {asked, used, workers},          used: read back; workers: really started
 *      counts: {dispatches, submits, webnn},                      by hooks, during the first run (labels.js)
 *      adapter: as in environment(), or null,
 *      placement: {nodes: {provider: number}, cpu_operators: [...]} | null,   only if the runtime refused to use the CPU
 *      model_bytes,
 *      error: null | {stage: "api" | "runtime" | "download" | "session" | "first run", name, message}}
 *     After an error there is no session; the fields that were not reached are missing.
 *
 * block({calls})                        -> {seconds}             one block of back-to-back calls, timed as one: seconds of all
 * samples({calls, for_s, room})         -> {seconds: [...]}      mean seconds of one call, for each block of `calls`: blocks are
 *     taken until for_s have passed or there are `room`; at least one. An untimed call goes first.
 * outputs()                             -> {name: {type, shape, data: base64}}       of one further run
 * counts({calls})                       -> {dispatches, submits, webnn}              by hooks, of so many further calls
 * blocking({for_s})                     -> {idle_gap_s, longest_gap_s, longest_task_s, calls}
 *     How long the main thread answers nothing: longest gap of a timer while calls run one after another, each after a turn of
 *     the event loop; idle_gap_s: the same with no calls. longest_task_s: of the browser's own `longtask` entries, or null.
 * memory({within_s})                    -> {bytes, breakdown} | {error}              measureUserAgentSpecificMemory
 * close()                               -> {}
 *
 * features({audio, settings, calls, for_s, room, values})   -> {seconds: [...], shape, values: base64 | null}
 *     Log-mel in the page (mel.js) of audio: URL of float32 samples; settings: `Exported.features`. Seconds as in `samples`.
 */

import { adapterInfo, describe, gpuMissing, mlMissing, NativeWorker } from './labels.js';
import { array, base64 } from './arrays.js';
import { now, samples, step } from './clock.js';
import { LogMel } from './mel.js';
import { absolute, functions } from './session.js';

let worker = null; // where the session is; null: here
const waiting = new Map();

function inWorker(name, argument) {
  return new Promise((resolve, reject) => {
    const id = crypto.randomUUID();
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, name, argument });
  });
}

function started() {
  const made = new NativeWorker(new URL('worker.js', import.meta.url), { type: 'module' });
  made.onmessage = ({ data: { id, value, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(Object.assign(new Error(error.message), { name: error.name }));
    else resolve(value);
  };
  made.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(`the worker failed: ${event.message}`));
    waiting.clear();
  };
  return made;
}

const there = (name) => (argument = {}) => (worker ? inWorker(name, argument) : functions[name](argument));

async function open(argument) {
  await close();
  if (argument.where === 'worker') worker = started();
  return there('open')(absolute(argument));
}

async function close() {
  await there('close')();
  worker?.terminate();
  worker = null;
  return {};
}

const ML_DEVICES = ['cpu', 'gpu', 'npu'];

async function environment() {
  const error = await gpuMissing();
  const ml = {};
  for (const device of ML_DEVICES) ml[device] = await mlMissing(device);
  return {
    isolated: globalThis.crossOriginIsolated === true,
    shared_memory: typeof SharedArrayBuffer !== 'undefined',
    cores: navigator.hardwareConcurrency ?? null,
    user_agent: navigator.userAgent,
    clock_step_s: step(),
    gpu: { adapter: error ? null : adapterInfo(), error },
    ml,
    memory_api: typeof performance.measureUserAgentSpecificMemory === 'function',
  };
}

/** Longest time, in seconds, between two ticks of a timer while `work` goes on. */
async function longestGap(work) {
  let last = now();
  let longest = 0;
  const timer = setInterval(() => {
    const time = now();
    longest = Math.max(longest, time - last);
    last = time;
  }, 1);
  await work();
  await turn();
  clearInterval(timer);
  return longest;
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

async function blocking({ for_s }) {
  const known = globalThis.PerformanceObserver?.supportedEntryTypes?.includes('longtask');
  let longestTask = 0;
  const seen = (entries) => entries.forEach(({ duration }) => (longestTask = Math.max(longestTask, duration / 1000)));
  const idle = await longestGap(() => pause(for_s));
  const observer = known ? new PerformanceObserver((list) => seen(list.getEntries())) : null;
  observer?.observe({ type: 'longtask' });
  let calls = 0;
  const one = there('block');
  const longest = await longestGap(async () => {
    for (const end = now() + for_s; !calls || now() < end; calls++) {
      await one({ calls: 1 });
      await turn();
    }
  });
  await pause(0.05); // the browser hands out entries a little later
  if (observer) seen(observer.takeRecords());
  observer?.disconnect();
  return { idle_gap_s: idle, longest_gap_s: longest, longest_task_s: known ? longestTask : null, calls };
}

async function memory({ within_s }) {
  if (!performance.measureUserAgentSpecificMemory) return { error: 'performance.measureUserAgentSpecificMemory is not there' };
  const late = pause(within_s).then(() => ({ error: `no answer within ${within_s} s` }));
  const asked = performance.measureUserAgentSpecificMemory().catch((error) => ({ error: describe(error).message }));
  return Promise.race([asked, late]);
}

async function features({ audio, settings, values, ...timing }) {
  const wave = await array('float32', audio);
  const extractor = new LogMel(settings);
  const seconds = await samples(() => extractor.compute(wave), timing);
  const got = extractor.compute(wave);
  return { seconds, shape: got.shape, values: values ? base64(got.values) : null };
}

window.labbench = {
  open, close, environment, blocking, memory, features,
  block: there('block'), samples: there('samples'), counts: there('counts'), outputs: there('outputs'),
};
