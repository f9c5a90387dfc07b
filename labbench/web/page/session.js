/* One session of onnxruntime-web, on the main thread or in a worker: what bench.js describes. */

import { adapterInfo, describe, gpuMissing, mlMissing, overhear, since, snapshot } from './labels.js';
import { array, base64, bytes } from './arrays.js';
import { block, now, samples } from './clock.js';

const BUNDLES = {
  wasm: 'ort.wasm.min.mjs',
  webgpu: 'ort.webgpu.min.mjs',
  'webgpu-jsep': 'ort.all.min.mjs',
  webnn: 'ort.all.min.mjs',
};
const ORT = new URL('ort/', import.meta.url);

let ort = null;
let loaded = null; // bundle and threads: a page can load the runtime once only
let session = null;
let feeds = null;

/** The caller's: not an answer, but a rejection. */
class Mistake extends Error {}

/** [kind, device]: "webnn-cpu" is "webnn" on "cpu"; the others have no device. */
function split(provider) {
  return provider.startsWith('webnn-') ? ['webnn', provider.slice('webnn-'.length)] : [provider, null];
}

async function missing(provider) {
  const [kind, device] = split(provider);
  if (kind === 'webnn') return mlMissing(device);
  return kind === 'wasm' ? null : gpuMissing();
}

async function load(provider, threads) {
  const bundle = BUNDLES[split(provider)[0]];
  if (!bundle) throw new Mistake(`unknown provider ${provider}`);
  if (loaded && (loaded.bundle !== bundle || loaded.threads !== threads)) {
    throw new Mistake(`the runtime is loaded as ${loaded.bundle} with ${loaded.threads} threads: load the page again`);
  }
  if (!loaded) {
    ort = await import(new URL(bundle, ORT).href);
    ort.env.wasm.wasmPaths = ORT.href;
    ort.env.wasm.numThreads = threads;
    loaded = { bundle, threads };
  }
}

function options(provider, dims, strict) {
  const [kind, deviceType] = split(provider);
  const one = kind === 'webnn' ? { name: 'webnn', deviceType } : kind.replace('-jsep', '');
  const all = { executionProviders: [one], graphOptimizationLevel: 'all', freeDimensionOverrides: dims ?? {} };
  if (kind !== 'wasm' && strict) all.extra = { session: { disable_cpu_ep_fallback: '1' } };
  if (!strict) Object.assign(all, { logSeverityLevel: 0, logVerbosityLevel: 0 });
  return all;
}

/** Nodes by provider, as the runtime tells the console, of a session that may use the CPU too. */
async function placement(model, provider, dims) {
  let said = '';
  try {
    said = await overhear(async () =>
      (await ort.InferenceSession.create(new Uint8Array(model), options(provider, dims, false))).release());
  } catch {
    return null;
  }
  const found = {};
  const operators = new Set();
  let current = null;
  for (const line of said.split('\n')) {
    const placed = line.match(/Node\(s\) placed on \[(\w+?)(?:ExecutionProvider)?\]\. Number of nodes: (\d+)/);
    const node = line.match(/VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \(/);
    if (placed) found[(current = placed[1])] = Number(placed[2]);
    else if (node && current === 'CPU') operators.add(node[1]);
  }
  return Object.keys(found).length ? { nodes: found, cpu_operators: [...operators].sort() } : null;
}

export async function open({ model, inputs, provider, threads = 1, dims, where = 'page' }) {
  await close();
  const before = snapshot();
  const told = { provider, where, phases: {}, adapter: null, placement: null };
  let stage = 'api';
  let content = null;
  try {
    const words = await missing(provider);
    if (words) return { ...told, error: { stage, name: 'Missing', message: words } };
    stage = 'runtime';
    let start = now();
    await load(provider, threads);
    told.phases.runtime_s = now() - start;

    stage = 'download';
    start = now();
    content = await bytes(model);
    told.phases.download_s = now() - start;
    told.model_bytes = content.byteLength;
    const given = {};
    for (const [name, { type, shape, data }] of Object.entries(inputs)) {
      given[name] = new ort.Tensor(type, await array(type, data), shape);
    }

    stage = 'session';
    start = now();
    session = await ort.InferenceSession.create(new Uint8Array(content), options(provider, dims, true));
    told.phases.session_s = now() - start;
    told.threads = { asked: threads, used: ort.env.wasm.numThreads, workers: since(before).workers };
    feeds = given;

    stage = 'first run';
    const runs = snapshot();
    start = now();
    await call();
    told.phases.first_run_s = now() - start;
    told.counts = since(runs);
    told.adapter = provider.startsWith('webgpu') ? adapterInfo() : null;
    return { ...told, error: null };
  } catch (error) {
    if (error instanceof Mistake) throw error;
    const words = describe(error);
    if (stage === 'session' && words.message.includes('fallback')) told.placement = await placement(content, provider, dims);
    told.adapter = provider.startsWith('webgpu') ? adapterInfo() : null;
    await close();
    return { ...told, error: { stage, ...words } };
  }
}

const call = () => session.run(feeds);

function ready() {
  if (!session) throw new Mistake('no session: open one first');
}

export async function close() {
  const old = session;
  session = feeds = null;
  await old?.release();
  return {};
}

export const functions = {
  open,
  close,
  async block({ calls }) {
    ready();
    return { seconds: await block(call, calls) };
  },
  async samples(argument) {
    ready();
    return { seconds: await samples(call, argument) };
  },
  async counts({ calls }) {
    ready();
    const before = snapshot();
    await block(call, calls);
    return since(before);
  },
  async outputs() {
    ready();
    const told = {};
    for (const [name, value] of Object.entries(await call())) {
      told[name] = { type: value.type, shape: [...value.dims], data: base64(value.data) };
    }
    return told;
  },
};

/** One run with some inputs of one's own: {name: {type, shape, data}}. Returns the outputs as the runtime gives them. */
export function infer(given) {
  ready();
  const own = Object.entries(given).map(([name, { type, shape, data }]) => [name, new ort.Tensor(type, data, shape)]);
  return session.run({ ...feeds, ...Object.fromEntries(own) });
}

/** URLs of `open`'s argument as a worker needs them too, whose own address is another. */
export function absolute(argument) {
  const url = (relative) => new URL(relative, document.baseURI).href;
  const inputs = Object.entries(argument.inputs).map(([name, one]) => [name, { ...one, data: url(one.data) }]);
  return { ...argument, model: url(argument.model), inputs: Object.fromEntries(inputs) };
}
