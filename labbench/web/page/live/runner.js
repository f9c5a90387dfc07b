/* The page that the runner drives: live.html.
 *
 * labbench.rate(hertz)      the rate of the next audio context, that of the model
 * click on #gesture         makes and starts it: a browser starts audio for a user only
 * labbench.live(options)    one run (live.js), with that context
 */
import { live } from './live.js';

const CLOSE_MS = 2000; // Firefox may never say that it has closed a context

const button = document.getElementById('gesture');
let rate = 16000;
let context = null;
button.onclick = () => {
  context = new AudioContext({ sampleRate: rate });
  context.resume();
};

async function run(options) {
  try {
    return await live({ ...options, context });
  } finally {
    const closed = context?.close(); // a page that is left with its audio running holds up the next one
    context = null;
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, CLOSE_MS))]);
  }
}

window.labbench = { rate: (hertz) => ((rate = hertz), null), live: run };
