/* What really ran where: hooks around the browser's own interfaces, set before the runtime loads and independent of it. */

export const counts = { dispatches: 0, submits: 0, webnn: 0, workers: 0 };
export const NativeWorker = globalThis.Worker; // for workers that are not the runtime's
let adapter = null; // the last one that anybody got

function counted(type, method, name) {
  const prototype = globalThis[type]?.prototype;
  const original = prototype?.[method];
  if (!original) return;
  prototype[method] = function (...args) {
    counts[name]++;
    return original.apply(this, args);
  };
}

counted('GPUComputePassEncoder', 'dispatchWorkgroups', 'dispatches');
counted('GPUComputePassEncoder', 'dispatchWorkgroupsIndirect', 'dispatches');
counted('GPUQueue', 'submit', 'submits');
counted('MLContext', 'dispatch', 'webnn');

if (NativeWorker) {
  globalThis.Worker = class extends NativeWorker {
    constructor(...args) {
      super(...args);
      counts.workers++;
    }
  };
}

if (globalThis.GPU) {
  const original = GPU.prototype.requestAdapter;
  GPU.prototype.requestAdapter = async function (...args) {
    const got = await original.apply(this, args);
    if (got) adapter = got;
    return got;
  };
}

export const snapshot = () => ({ ...counts });

export function since(before) {
  return Object.fromEntries(Object.entries(counts).map(([name, value]) => [name, value - before[name]]));
}

let listener = null; // the runtime keeps the console's functions as they were when it was loaded, so these are changed once

for (const name of ['log', 'info', 'warn', 'error', 'debug']) {
  const original = console[name];
  console[name] = (...words) => (listener ? listener(words.join(' ')) : original.apply(console, words));
}

/** What is said to the console while `work` goes on, as one text; the console itself is not told. */
export async function overhear(work) {
  const said = [];
  listener = (text) => said.push(text);
  try {
    await work();
  } finally {
    listener = null;
  }
  return said.join('\n');
}

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b|software/i;

/** The adapter in use, in words; null if nobody got one. */
export function adapterInfo() {
  if (!adapter) return null;
  const { vendor = '', architecture = '', device = '', description = '', isFallbackAdapter } = adapter.info ?? {};
  const fallback = Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter);
  const name = description || [vendor, architecture, device].filter(Boolean).join(' ') || 'unnamed adapter';
  const software = fallback || SOFTWARE.test([vendor, architecture, device, description].join(' '));
  return { name, vendor, architecture, device, description, fallback, software };
}

/** What is wrong with WebGPU here, or null. */
export async function gpuMissing() {
  if (!globalThis.navigator?.gpu) return 'navigator.gpu is not there';
  try {
    return (await navigator.gpu.requestAdapter()) ? null : 'navigator.gpu.requestAdapter() gave no adapter';
  } catch (error) {
    return `navigator.gpu.requestAdapter(): ${describe(error).message}`;
  }
}

/** What is wrong with WebNN on a kind of device ("cpu", "gpu", "npu"), or null. */
export async function mlMissing(deviceType) {
  if (!globalThis.navigator?.ml) return 'navigator.ml is not there';
  try {
    (await navigator.ml.createContext({ deviceType })).destroy?.();
    return null;
  } catch (error) {
    return `navigator.ml.createContext: ${describe(error).message}`;
  }
}

/** An exception of any kind (the runtime throws strings and numbers too) as {name, message}. */
export function describe(error) {
  if (error instanceof Error || error instanceof DOMException) return { name: error.name, message: error.message };
  return { name: typeof error, message: String(error?.message ?? error) };
}
