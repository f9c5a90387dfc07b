/* Time on the page's clock, in seconds, and how fine that clock is. */

export const now = () => performance.now() / 1000;

/** Smallest step of the clock: of so many changes seen while looking at it without a pause. */
export function step(changes = 200) {
  let smallest = Infinity;
  let last = performance.now();
  while (changes > 0) {
    const value = performance.now();
    if (value === last) continue;
    smallest = Math.min(smallest, value - last);
    last = value;
    changes--;
  }
  return smallest / 1000;
}

/** Mean seconds of one call for blocks of `calls`, until for_s have passed or there are `room` of them; an untimed call first. */
export async function samples(call, { calls, for_s, room }) {
  await call();
  const seconds = [];
  const end = now() + for_s;
  while (seconds.length < room && (!seconds.length || now() < end)) seconds.push((await block(call, calls)) / calls);
  return seconds;
}

/** Seconds of a block of back-to-back calls, timed as one. */
export async function block(call, calls) {
  const start = now();
  for (let i = 0; i < calls; i++) await call();
  return now() - start;
}
