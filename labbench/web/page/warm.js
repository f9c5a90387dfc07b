/* When calls are warm: the rule of labbench/measure/steady.py, for what no Python watches. */

import { now } from './clock.js';

const WINDOW = 5; // two windows of calls whose medians differ by at most
const CHANGE = 0.05; // this much,
const MIN_S = 0.5; // not before this: engines compile WebAssembly twice
const MAX_S = 3; // so long

/** Call until warm. `timed` makes one call and returns its seconds. */
export async function warmUp(timed) {
  const times = [];
  const began = now();
  const last = () => median(times.slice(-WINDOW));
  while (now() - began < MAX_S) {
    times.push(await timed());
    if (times.length < 2 * WINDOW || now() - began < MIN_S) continue;
    if (Math.abs(last() / median(times.slice(-2 * WINDOW, -WINDOW)) - 1) <= CHANGE) {
      return { warmed: true, warmup_calls: times.length, call_s: last() };
    }
  }
  return { warmed: false, warmup_calls: times.length, call_s: last() };
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : NaN;
}
