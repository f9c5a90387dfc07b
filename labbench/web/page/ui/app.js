// The page that a person uses: index.html. What is measured is in live/live.js and benchmark.js; here it is asked for and shown.

import { live, obstacle } from '../live/live.js';
import { median } from '../warm.js';
import { measure } from './benchmark.js';
import { Chart } from './meter.js';
import { Results, device } from './results.js';

const PROVIDERS = ['wasm', 'webgpu', 'webnn-cpu', 'webnn-gpu', 'webnn-npu'];
const LONGEST_S = 600; // a live run ends by itself: a result has a limit of size
const RECENT = 200; // hops that the figures tell of
const FEWEST = 6; // hops that a record needs
const SAY_S = 5; // between sentences, which a screen reader reads aloud

const $ = (id) => document.getElementById(id);
const chart = new Chart($('chart'));
let catalogue, environment, results, abort;

async function begin() {
  environment = await window.labbench.environment();
  catalogue = await (await fetch('catalogue.json')).json();
  results = new Results(catalogue, await device(environment));
  for (const { name, megabytes } of catalogue.models) $('model').add(new Option(`${name} (${spokenSize(megabytes)})`, name));
  showFacts();
  showProviders();
  describe();
  $('send').hidden = !catalogue.takes_results;
  if (!environment.shared_memory) Object.assign($('threads'), { value: 1, disabled: true });
  else $('threads').max = environment.cores ?? 64;
  const hindered = obstacle();
  if (hindered) say(`No live audio here: ${hindered}. The benchmark runs all the same.`, 'bad');
  document.body.dataset.ready = '';
}

function showFacts() {
  const { gpu, cores, isolated } = environment;
  fact(cores ? `${cores} cores` : 'cores unknown');
  fact(isolated ? 'threads possible' : 'no threads: not cross-origin isolated', !isolated);
  fact(
    gpu.adapter ? `WebGPU: ${gpu.adapter.name || 'unnamed adapter'}${gpu.adapter.software ? ' (software)' : ''}` : 'no WebGPU',
    !gpu.adapter,
  );
  fact(`clock in steps of ${+(environment.clock_step_s * 1e6).toFixed(0)} µs`);
}

function fact(text, lacking = false) {
  const item = document.createElement('li');
  item.textContent = text;
  item.classList.toggle('lacking', lacking);
  $('facts').append(item);
}

/** Why a provider cannot be asked for, in the browser's words; null if it can. */
function lacking(provider) {
  if (provider === 'webgpu') return environment.gpu.error;
  return provider.startsWith('webnn-') ? environment.ml[provider.slice('webnn-'.length)] : null;
}

function showProviders() {
  const words = new Map();
  for (const provider of PROVIDERS) {
    const why = lacking(provider);
    const label = document.createElement('label');
    const radio = Object.assign(document.createElement('input'), {
      type: 'radio',
      name: 'provider',
      value: provider,
      disabled: Boolean(why),
    });
    radio.checked = provider === 'wasm';
    label.append(radio, ` ${provider}`);
    $('providers').append(label);
    if (why) words.set(why, [...(words.get(why) ?? []), provider]);
  }
  $('missing').textContent = [...words].map(([why, names]) => `${names.join(', ')}: ${why}`).join(' · ');
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const model = () => catalogue.models.find(({ name }) => name === $('model').value);

function describe() {
  const { window_s, task, rate } = model();
  $('about').textContent = `${task.replaceAll('-', ' ')}; hears the last ${+window_s.toFixed(2)} s, at ${rate / 1e3} kHz`;
}

function asked(kind) {
  const provider = chosen('provider');
  const threads = provider === 'wasm' ? Math.max(1, Number($('threads').value) || 1) : 1;
  return { kind, started_at: new Date().toISOString(), model: model().name, window_s: model().window_s, provider, threads };
}

// --- a live run ---------------------------------------------------------------------------------------------------------

async function startLive() {
  const { session, audio, rate, window } = model();
  const wish = { ...asked('live'), hop_s: Number($('hop').value), source: chosen('source'), seconds: LONGEST_S };
  const context = typeof AudioContext === 'function' ? new AudioContext({ sampleRate: rate }) : null; // now: this is the gesture
  context?.resume();
  abort = new AbortController();
  const show = shown(wish);
  try {
    let source = wish.source;
    if (source === 'file') source = await decoded(context);
    say(`Loading ${wish.model}…`, 'runs');
    const options = {
      context, source, rate, window, hop: Math.round(wish.hop_s * rate), seconds: LONGEST_S,
      model: { session: { ...session, provider: wish.provider, threads: wish.threads }, audio },
    };
    const answer = await live(options, { onHop: show, signal: abort.signal });
    finish(wish, answer);
  } catch (error) {
    say(`${error.message ?? error}`, 'bad');
  } finally {
    await context?.close();
    abort = null;
  }
}

async function decoded(context) {
  const [file] = $('file').files;
  if (!file) throw new Error('Choose a sound file first.');
  try {
    return await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is no sound that this browser can decode.`);
  }
}

/** What to do with each hop. */
function shown({ hop_s }) {
  const recent = [];
  let [said, drawn] = [0, false];
  chart.clear(hop_s);
  return (hop, counts) => {
    const total = hop.received_s - hop.from_s;
    if (!Number.isFinite(total)) return;
    recent.push({ total, response: hop.received_s - hop.complete_s, used: (hop.features_s + hop.model_s) / hop_s });
    if (recent.length > RECENT) recent.shift();
    chart.add({ at: hop.received_s, total, dropped: hop.dropped });
    if (!drawn) {
      drawn = true;
      requestAnimationFrame(() => {
        drawn = false;
        figures(recent, counts, hop.level);
      });
    }
    if (hop.received_s - said > SAY_S) {
      say(sentence(recent, counts), counts.dropped ? 'bad' : 'runs');
      said = hop.received_s;
    }
  };
}

function figures(recent, counts, level) {
  const totals = recent.map(({ total }) => total);
  const used = median(recent.map((hop) => hop.used));
  $('response').textContent = ms(median(recent.map(({ response }) => response)));
  $('median').textContent = ms(median(totals));
  $('high').textContent = ms(quantile(totals, 0.95));
  $('chart').dataset.hops = counts.hops;
  $('dropped').textContent = counts.dropped;
  $('dropped').classList.toggle('lost', counts.dropped > 0);
  $('factor').value = used;
  $('factorSaid').textContent = percent(used);
  const decibels = 20 * Math.log10(Math.max(level, 1e-3));
  $('level').value = decibels;
  $('levelSaid').textContent = `${decibels.toFixed(0)} dB`;
}

function sentence(recent, counts) {
  const late = ms(median(recent.map(({ response }) => response)));
  const used = percent(median(recent.map((hop) => hop.used)));
  if (counts.dropped) return `Does not keep up: ${counts.dropped} of ${counts.dropped + counts.hops} hops were dropped.`;
  return `Keeps up: an answer ${late} after each hop, in ${used} of the time there is.`;
}

// --- a benchmark --------------------------------------------------------------------------------------------------------

async function startBenchmark() {
  const wish = asked('benchmark');
  const answer = await measure(model(), wish.provider, wish.threads, environment, (text) => say(`${text}…`, 'runs'));
  finish(wish, answer);
}

// --- results ------------------------------------------------------------------------------------------------------------

function finish(wish, answer) {
  if (answer.status === 'ok' && answer.hops && answer.hops.from_s.length < FEWEST) return say('Stopped before there was enough to tell.');
  results.add(wish, answer);
  const row = $('rows').insertRow();
  const cells = [
    wish.kind === 'live' ? `live, ${wish.hop_s * 1e3} ms` : 'benchmark',
    wish.model,
    `${wish.provider}${wish.threads > 1 ? ` ×${wish.threads}` : ''}`,
  ];
  const [numbers, came] =
    answer.status === 'ok' ? summary(wish, answer) : [['–', '–', '–', '–'], `${answer.status}: ${answer.reason}`];
  [...cells, ...numbers, came].forEach((text, i) => {
    const cell = row.insertCell();
    cell.textContent = text;
    cell.classList.toggle('num', i >= cells.length && i < cells.length + numbers.length);
  });
  $('none').hidden = true;
  $('frame').hidden = false;
  for (const id of ['save', 'copy', 'send']) $(id).disabled = false;
  say(came, answer.status === 'ok' && !answer.counts?.dropped ? 'good' : 'bad');
}

function summary(wish, answer) {
  if (wish.kind === 'benchmark') {
    const [typical, off] = [median(answer.seconds), answer.check.max_error];
    const right = off <= 1e-4 ? 'the output is right' : `the output is off by ${off.toPrecision(2)} of its largest value`;
    return [
      [ms(typical), ms(quantile(answer.seconds, 0.95)), percent(typical / wish.window_s), '–'],
      `A call takes ${ms(typical)}; ${right}.`,
    ];
  }
  const { from_s, complete_s, received_s, features_s, model_s } = answer.hops;
  const rows = from_s.map((from, i) => ({
    total: received_s[i] - from,
    response: received_s[i] - complete_s[i],
    used: (features_s[i] + model_s[i]) / wish.hop_s,
  }));
  const totals = rows.map(({ total }) => total);
  const numbers = [
    ms(median(totals)),
    ms(quantile(totals, 0.95)),
    percent(median(rows.map(({ used }) => used))),
    answer.counts.dropped,
  ];
  return [numbers, sentence(rows, answer.counts)];
}

async function send() {
  const answer = await fetch('result', {
    method: 'POST',
    body: results.json(),
    headers: { 'Content-Type': 'application/json' },
  });
  const words = answer.ok ? 'Sent: labbench has it.' : `labbench refused it: ${(await answer.text()).trim()}`;
  say(words, answer.ok ? 'good' : 'bad');
}

function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([results.json()], { type: 'application/json' }));
  link.download = `labbench-web-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy() {
  await navigator.clipboard.writeText(results.json());
  say('Copied.', 'good');
}

// --- words and wiring ---------------------------------------------------------------------------------------------------

function say(text, kind = '') {
  $('status').textContent = text;
  $('status').className = kind;
}

function quantile(values, level) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(level * sorted.length))] : NaN;
}

const ms = (seconds) => (seconds >= 1 ? `${seconds.toFixed(2)} s` : `${+(seconds * 1e3).toPrecision(3)} ms`);
const percent = (share) => `${+(share * 100).toPrecision(2)} %`;
const spokenSize = (megabytes) => (megabytes < 1 ? `${Math.ceil(megabytes * 1e3)} kB` : `${+megabytes.toPrecision(2)} MB`);

/** One thing at a time: the buttons say what can be done now. */
async function alone(work) {
  const own = [...$('form').elements].filter((one) => !one.disabled && one.id !== 'stop');
  own.forEach((one) => (one.disabled = true));
  try {
    await work();
  } catch (error) {
    say(`${error.message ?? error}`, 'bad');
  } finally {
    own.forEach((one) => (one.disabled = false));
    $('stop').disabled = true;
  }
}

$('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const run = alone(startLive);
  $('stop').disabled = false;
  $('now').scrollIntoView({ block: 'nearest' });
  $('stop').focus({ preventScroll: true });
  await run;
  $('start').focus({ preventScroll: true });
});
$('bench').addEventListener('click', () => alone(startBenchmark));
$('stop').addEventListener('click', () => abort?.abort());
$('model').addEventListener('change', describe);
for (const radio of document.querySelectorAll('input[name="source"]'))
  radio.addEventListener('change', () => ($('pick').hidden = chosen('source') !== 'file'));
$('save').addEventListener('click', save);
for (const [id, work] of [
  ['copy', copy],
  ['send', send],
])
  $(id).addEventListener('click', () => work().catch((error) => say(`${error.message ?? error}`, 'bad')));
begin().catch((error) => say(`This page could not start: ${error.message ?? error}`, 'bad'));
