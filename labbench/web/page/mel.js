/* Log-mel spectrograms as the models' authors compute them (transformers' WhisperFeatureExtractor, ClapFeatureExtractor).
 *
 * settings: sample_rate (Hz), n_fft, hop (samples), mels, f_min, f_max (Hz),
 *   log: "whisper" (log10, at most 8 below the largest, (x + 4) / 4) | "db" (10 log10) | "ln" (of at least 1e-6),
 *   center: frames are centred, the ends reflected; false: only whole frames,
 *   drop_last: leave out the last frame, time_first: frames × mels instead of mels × frames.
 * Filters are Slaney's, normalised to equal area.
 */

/** Complex transforms of one length, of any small prime factors (Stockham's autosort; Van Loan 1992, section 1.7). */
export class Fft {
  constructor(n) {
    this.n = n;
    this.stages = [];
    for (let left = n, l = 1; left > 1; ) {
      const r = [4, 2, 3, 5, 7].find((p) => left % p === 0);
      if (!r) throw new TypeError(`a transform of ${n} values: only factors up to 7 are supported`);
      left /= r;
      const cos = new Float64Array(r * l * r);
      const sin = new Float64Array(r * l * r);
      for (let out = 0; out < r * l; out++) {
        for (let q = 0; q < r; q++) {
          const angle = (-2 * Math.PI * ((q * out) % (r * l))) / (r * l);
          cos[out * r + q] = Math.cos(angle);
          sin[out * r + q] = Math.sin(angle);
        }
      }
      this.stages.push({ r, l, m: left, cos, sin });
      l *= r;
    }
    this.re = [new Float64Array(n), new Float64Array(n)];
    this.im = [new Float64Array(n), new Float64Array(n)];
  }

  /** Transform what stands in re[0], im[0]; returns the arrays with the result. */
  run() {
    let [x, y] = [0, 1];
    for (const { r, l, m, cos, sin } of this.stages) {
      const [xr, xi, yr, yi] = [this.re[x], this.im[x], this.re[y], this.im[y]];
      for (let k = 0; k < m; k++) {
        for (let s = 0; s < r; s++) {
          for (let j = 0; j < l; j++) {
            const out = s * l + j;
            let re = 0;
            let im = 0;
            for (let q = 0, at = k * l + j; q < r; q++, at += m * l) {
              const c = cos[out * r + q];
              const d = sin[out * r + q];
              re += xr[at] * c - xi[at] * d;
              im += xr[at] * d + xi[at] * c;
            }
            yr[k * r * l + out] = re;
            yi[k * r * l + out] = im;
          }
        }
      }
      [x, y] = [y, x];
    }
    return [this.re[x], this.im[x]];
  }
}

const STEP = Math.log(6.4) / 27; // Slaney's scale: linear up to 1000 Hz (15 mel), logarithmic above
const mel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + Math.log(hz / 1000) / STEP);
const hertz = (m) => (m < 15 ? (200 * m) / 3 : 1000 * Math.exp(STEP * (m - 15)));

/** Triangles as {first, weights}: what each filter takes from which bins. */
function filters({ sample_rate, n_fft, mels, f_min = 0, f_max = sample_rate / 2 }) {
  const bins = n_fft / 2 + 1;
  const edges = Array.from({ length: mels + 2 }, (_, i) =>
    hertz(mel(f_min) + ((mel(f_max) - mel(f_min)) * i) / (mels + 1)));
  return Array.from({ length: mels }, (_, i) => {
    const [low, peak, high] = edges.slice(i, i + 3);
    const weights = [];
    let first = 0;
    for (let bin = 0; bin < bins; bin++) {
      const hz = (bin * sample_rate) / n_fft;
      const weight = Math.min((hz - low) / (peak - low), (high - hz) / (high - peak));
      if (weight <= 0) continue;
      if (!weights.length) first = bin;
      weights.push((weight * 2) / (high - low));
    }
    return { first, weights: Float64Array.from(weights) };
  });
}

export class LogMel {
  constructor(settings) {
    this.settings = settings;
    this.fft = new Fft(settings.n_fft);
    this.window = Float64Array.from({ length: settings.n_fft }, (_, i) =>
      0.5 - 0.5 * Math.cos((2 * Math.PI * i) / settings.n_fft));
    this.filters = filters(settings);
  }

  frames(length) {
    const { n_fft, hop, center, drop_last } = this.settings;
    return Math.max(0, Math.floor((length - (center ? 0 : n_fft)) / hop) + (drop_last ? 0 : 1));
  }

  /** {values: Float32Array, shape} of mono samples at the settings' rate. */
  compute(samples) {
    const { hop, n_fft, mels, center, time_first, log } = this.settings;
    const frames = this.frames(samples.length);
    const energies = new Float64Array(mels * frames);
    const offset = center ? n_fft / 2 : 0;
    for (let t = 0; t < frames; t += 2) this.#pair(samples, t * hop - offset, t, frames, energies); // two at a time
    const values = new Float32Array(mels * frames);
    const scaled = scale(energies, log);
    for (let i = 0; i < mels; i++) {
      for (let t = 0; t < frames; t++) values[time_first ? t * mels + i : i * frames + t] = scaled[i * frames + t];
    }
    return { values, shape: time_first ? [frames, mels] : [mels, frames] };
  }

  /** Two real frames as one complex one; their spectra come apart by symmetry. */
  #pair(samples, start, t, frames, energies) {
    const { hop, n_fft } = this.settings;
    const [a, b] = [this.fft.re[0], this.fft.im[0]];
    const both = t + 1 < frames;
    for (let i = 0; i < n_fft; i++) {
      a[i] = reflected(samples, start + i) * this.window[i];
      b[i] = both ? reflected(samples, start + hop + i) * this.window[i] : 0;
    }
    const [re, im] = this.fft.run();
    const power = [new Float64Array(n_fft / 2 + 1), new Float64Array(n_fft / 2 + 1)];
    for (let k = 0; k <= n_fft / 2; k++) {
      const j = (n_fft - k) % n_fft;
      power[0][k] = ((re[k] + re[j]) ** 2 + (im[k] - im[j]) ** 2) / 4;
      power[1][k] = ((im[k] + im[j]) ** 2 + (re[j] - re[k]) ** 2) / 4;
    }
    this.filters.forEach(({ first, weights }, i) => {
      for (let f = 0; f < (both ? 2 : 1); f++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * power[f][first + k];
        energies[i * frames + t + f] = sum;
      }
    });
  }
}

function reflected(samples, i) {
  const last = samples.length - 1;
  return samples[i < 0 ? -i : i > last ? 2 * last - i : i];
}

function scale(energies, log) {
  if (log === 'ln') return energies.map((x) => Math.log(Math.max(x, 1e-6)));
  const tens = energies.map((x) => Math.log10(Math.max(x, 1e-10)));
  if (log === 'db') return tens.map((x) => 10 * x);
  const least = tens.reduce((a, b) => Math.max(a, b), -Infinity) - 8;
  return tens.map((x) => (Math.max(x, least) + 4) / 4);
}
