// The worker: waits until a hop of audio is whole, makes features of the window that ends with it, runs the model, tells.
//
// Messages in:  {open: {...session}, window, hop, ring, slowdown}   frames; slowdown: see `run`
// Messages out: {ready: {...}} | {error: {stage, name, message}}, then one {hop: {...}} each, and {ended: {...}}
//
// A hop whose window was overwritten before it was read is dropped, and so is every other one up to the newest: a backlog that
// cannot be worked off is given up at once, and counted.

import { warmUp } from '../warm.js';
import { openModel } from './model.js';
import { RUNNING, STARVED, WRITTEN, completeAt, readWindow, views } from './ring.js';

const LOOK_MS = 50; // a wait ends after this, to see whether the run does

const clocks = { fine: () => (performance.timeOrigin + performance.now()) / 1e3, coarse: () => Date.now() / 1e3 };
const seconds = () => performance.now() / 1e3;
let model, ring, view, task;

self.onmessage = async ({ data }) => {
  try {
    if (data.open) await open(data);
    if (data.run) await run(clocks[data.run.clock]);
  } catch (error) {
    self.postMessage({
      error: { stage: data.open ? 'open' : 'run', name: error.name, message: String(error.message ?? error) },
    });
  }
};

async function open(message) {
  task = message;
  ring = message.ring;
  view = views(ring);
  model = await openModel(message.open);
  if (model.error) return self.postMessage({ error: model.error, opened: model.opened });
  const silence = new Float32Array(task.window);
  const warmed = await warmUp(async () => {
    const start = seconds();
    await model.run(model.features(silence));
    return seconds() - start;
  });
  self.postMessage({ ready: { opened: model.opened, ...warmed } });
}

/** Hops until the run is over. `slowdown` above 1 has each take that many times as long as a hop, spent in the model's place. */
async function run(clock) {
  const input = new Float32Array(task.window);
  let hop = 1;
  let dropped = 0;
  while (Atomics.load(view.state, RUNNING)) {
    const written = Atomics.load(view.state, WRITTEN);
    const end = hop * task.hop;
    if (written < end) {
      Atomics.wait(view.state, WRITTEN, written, LOOK_MS); // waitAsync never answers in WebKitGTK 2.50 when audio threads notify
      continue;
    }
    const picked = clock();
    if (!readWindow(ring, view, end, input)) {
      const newest = Math.floor(Atomics.load(view.state, WRITTEN) / task.hop);
      dropped += Math.max(1, newest - hop);
      hop = Math.max(hop + 1, newest);
      continue;
    }
    const [from, to] = [completeAt(ring, view, end - task.hop), completeAt(ring, view, end)];
    const start = seconds();
    const feed = model.features(input);
    const made = seconds();
    await model.run(feed);
    let done = seconds();
    if (task.slowdown) while (done - start < (task.slowdown * task.hop) / task.rate) done = seconds();
    const behind = Math.floor((Atomics.load(view.state, WRITTEN) - end) / task.hop);
    self.postMessage({
      hop: {
        number: hop, from_s: from, complete_s: to, picked_s: picked, done_s: clock(),
        features_s: made - start, model_s: done - made, dropped, behind, level: level(input),
      },
    });
    dropped = 0;
    hop += 1;
  }
  const written = Atomics.load(view.state, WRITTEN);
  const whole = Math.floor(written / task.hop);
  self.postMessage({
    ended: { written, starved: Atomics.load(view.state, STARVED), dropped, waiting: Math.max(0, whole - hop + 1) },
  });
  await model.close();
}

/** Root mean square of the newest hop. */
function level(input) {
  let sum = 0;
  for (let i = input.length - task.hop; i < input.length; i++) sum += input[Math.max(i, 0)] ** 2;
  return Math.sqrt(sum / task.hop);
}
