// The audio thread's part: writes every quantum of its input into the ring, with the time at which it was complete.
// A worklet has no performance.now in some browsers; then the stamps are Date.now's, in whole milliseconds, and `fine` says so.

const fine = typeof performance === 'object' && typeof performance.now === 'function';
const now = fine ? () => (performance.timeOrigin + performance.now()) / 1e3 : () => Date.now() / 1e3;

class Tap extends AudioWorkletProcessor {
  constructor({ processorOptions: { ring } }) {
    super();
    this.ring = ring;
    this.state = new Int32Array(ring.buffer, 0, 3);
    this.stamps = new Float64Array(ring.buffer, ring.stamps, ring.capacity / ring.quantum);
    this.samples = new Float32Array(ring.buffer, ring.samples, ring.capacity);
    this.port.postMessage({ fine });
  }

  process(inputs) {
    const [WRITTEN, STARVED, RUNNING] = [0, 1, 2]; // as in ring.js
    if (!Atomics.load(this.state, RUNNING)) return true;
    const { capacity, quantum } = this.ring;
    const written = this.state[WRITTEN]; // nobody else writes it
    const channels = inputs[0];
    const at = written % capacity;
    if (channels.length && channels[0].length === quantum) {
      for (let i = 0; i < quantum; i++) {
        let sum = 0;
        for (const channel of channels) sum += channel[i];
        this.samples[at + i] = sum / channels.length;
      }
    } else {
      this.samples.fill(0, at, at + quantum);
      this.state[STARVED] += quantum;
    }
    this.stamps[(written / quantum) % this.stamps.length] = now();
    Atomics.store(this.state, WRITTEN, written + quantum);
    Atomics.notify(this.state, WRITTEN);
    return true;
  }
}

registerProcessor('labbench-tap', Tap);
