// One model, measured in a worker as the runner does: warm-up by its rule, blocks that the clock resolves, output compared.

import '../bench.js'; // gives window.labbench
import { warmUp } from '../warm.js';

const bench = window.labbench;
const RESOLVED = 0.01; // a step of the clock is at most this share of a block
const BUDGET_S = 4;
const MOST = 2000; // samples

/** {status, ...} for results.js. `say` is told what goes on. */
export async function measure(model, provider, threads, environment, say) {
  try {
    say(`Loading ${model.name}`);
    const opened = await bench.open({ ...model.session, provider, threads, where: 'worker' });
    if (opened.error) return { status: refused(opened.error), reason: opened.error.message, stage: opened.error.stage, opened };
    say(`Warming up ${model.name}`);
    const warm = await warmUp(async () => (await bench.block({ calls: 1 })).seconds);
    const calls = Math.max(1, Math.ceil(environment.clock_step_s / RESOLVED / Math.max(warm.call_s, 1e-9)));
    say(`Measuring ${model.name}`);
    const { seconds } = await bench.samples({ calls, for_s: BUDGET_S, room: MOST });
    const check = compared(await bench.outputs(), model.outputs);
    return { status: 'ok', opened, warm, calls, seconds, check };
  } catch (error) {
    return { status: 'failed', reason: `${error.message ?? error}`, stage: 'steady' };
  } finally {
    await bench.close();
  }
}

/** Largest difference to native onnxruntime's outputs, over their largest value. */
function compared(got, wanted) {
  let [error, largest] = [0, 0];
  for (const [name, reference] of Object.entries(wanted)) {
    const values = got[name] ? floats(got[name].data) : new Float32Array();
    floats(reference).forEach((value, i) => {
      largest = Math.max(largest, Math.abs(value));
      error = Math.max(error, Math.abs((values[i] ?? Infinity) - value)); // what is missing is wrong
    });
  }
  return { max_error: largest ? error / largest : error };
}

function floats(base64) {
  const text = atob(base64);
  return new Float32Array(Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer);
}

export const refused = ({ stage }) => (stage === 'api' || stage === 'session' ? 'unsupported' : 'failed');
