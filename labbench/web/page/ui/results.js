// What was measured, as one JSON document: what labbench/web/by_hand.py reads.

export const FORMAT = 'labbench-web';
export const VERSION = 1;

/** This device and browser, as far as the page is told. */
export async function device(environment) {
  const told = navigator.userAgentData;
  const more = await told?.getHighEntropyValues?.(['model', 'platformVersion', 'architecture']).catch(() => null);
  return {
    user_agent: navigator.userAgent,
    brands: (told?.brands ?? []).map(({ brand, version }) => `${brand} ${version}`),
    platform: [more?.platform ?? told?.platform ?? navigator.platform, more?.platformVersion].filter(Boolean).join(' '),
    model: more?.model || null,
    architecture: more?.architecture || null,
    mobile: told?.mobile ?? null,
    cores: environment.cores,
    memory_gib: navigator.deviceMemory ?? null,
    isolated: environment.isolated,
    shared_memory: environment.shared_memory,
    clock_step_s: environment.clock_step_s,
    gpu: environment.gpu,
  };
}

export class Results {
  constructor(catalogue, about) {
    this.head = {
      format: FORMAT,
      version: VERSION,
      labbench: catalogue.labbench,
      onnxruntime_web: catalogue.onnxruntime_web,
      device: about,
    };
    this.list = [];
  }

  add(asked, answer) {
    this.list.push({ ...asked, answer: answer.hops ? { ...answer, hops: relative(answer.hops) } : answer });
  }

  json() {
    return JSON.stringify({ ...this.head, made_at: new Date().toISOString(), results: this.list });
  }
}

/** Moments from the first one on, in whole microseconds: shorter, and no more than the clocks know. */
function relative(hops) {
  const start = hops.from_s[0] ?? 0;
  const moment = new Set(['from_s', 'complete_s', 'picked_s', 'done_s', 'received_s']);
  return Object.fromEntries(
    Object.entries(hops).map(([name, values]) => [
      name,
      values.map((value) => +(value - (moment.has(name) ? start : 0)).toFixed(6)),
    ]),
  );
}
