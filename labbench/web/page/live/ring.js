// The ring that the audio thread writes and the worker reads: one SharedArrayBuffer, no messages, no locks.
//
//   Int32    state    how many frames were written since the start, frames without input, whether it runs
//   Float64  stamps   when the quantum of each 128 frames was complete, by the clock below
//   Float32  samples  the frames themselves; frame f lies at f modulo the capacity
//
// The writer stores the samples and the stamp first and the count last (Atomics), so what the count covers is whole. The
// worklet (tap.js) can import nothing and gets this layout as an option.

export const QUANTUM = 128; // frames: what an AudioWorklet is given at a time (Web Audio API, "render quantum size")
export const WRITTEN = 0;
export const STARVED = 1;
export const RUNNING = 2;
const STATE_BYTES = 16;

/** A ring of at least `frames` frames. */
export function makeRing(frames) {
  const capacity = Math.ceil(frames / QUANTUM) * QUANTUM;
  const samples = STATE_BYTES + (8 * capacity) / QUANTUM;
  const buffer = new SharedArrayBuffer(samples + 4 * capacity);
  return { buffer, capacity, stamps: STATE_BYTES, samples, quantum: QUANTUM };
}

/** The views of a ring's buffer. */
export function views(ring) {
  return {
    state: new Int32Array(ring.buffer, 0, 3),
    stamps: new Float64Array(ring.buffer, ring.stamps, ring.capacity / ring.quantum),
    samples: new Float32Array(ring.buffer, ring.samples, ring.capacity),
  };
}

/** Copies frames [end - into.length, end) into `into`; frames before the first are silence. False: they were overwritten. */
export function readWindow(ring, view, end, into) {
  const start = end - into.length;
  const isWhole = () => Atomics.load(view.state, WRITTEN) + ring.quantum - start <= ring.capacity;
  if (!isWhole()) return false;
  const silent = Math.max(0, -start);
  into.fill(0, 0, silent);
  for (let done = silent; done < into.length;) {
    const at = (start + done) % ring.capacity;
    const length = Math.min(into.length - done, ring.capacity - at);
    into.set(view.samples.subarray(at, at + length), done);
    done += length;
  }
  return isWhole(); // nor while they were copied
}

/** When frame `end` was complete, in seconds of the clock; 0 for the start: the stamp of no quantum. */
export function completeAt(ring, view, end) {
  if (end <= 0) return NaN;
  return view.stamps[(Math.ceil(end / ring.quantum) - 1) % view.stamps.length];
}
