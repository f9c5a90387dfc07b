// The live picture: a bar a hop, the hop itself below, what comes on top above it; a mark where hops were dropped.

const SPAN_S = 20;

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear(0.1);
    new ResizeObserver(() => this.#later()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#later());
  }

  clear(hop) {
    this.hop = hop;
    this.bars = [];
    this.#later();
  }

  add({ at, total, dropped }) {
    this.bars.push({ at, total, dropped });
    while (this.bars[0].at < at - SPAN_S) this.bars.shift();
    this.#later();
  }

  #later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    const { canvas, bars, hop } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext('2d');
    pen.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const probe = (name) => resolved(canvas, `var(--${name})`);
    const [ink, line, accent, bad] = ['soft', 'line', 'accent', 'bad'].map(probe);
    const most = nice(Math.max(2 * hop, ...bars.map((bar) => bar.total)) * 1.05);
    const [left, bottom, top, right] = [3.4 * 16, height - 1.5 * 16, 12, width - 12];
    const y = (seconds) => bottom - ((bottom - top) * seconds) / most;
    const last = bars.at(-1)?.at ?? SPAN_S;
    const x = (at) => right - ((right - left) * (last - at)) / SPAN_S;
    pen.font = `12px ${style.fontFamily}`;
    pen.fillStyle = ink;
    pen.textBaseline = 'middle';
    for (let i = 0; i <= 4; i++) {
      const value = (most * i) / 4;
      pen.textAlign = 'right';
      pen.fillText(spoken(value, most), left - 8, y(value));
      pen.fillStyle = line;
      pen.fillRect(left, Math.round(y(value)), right - left, 1);
      pen.fillStyle = ink;
    }
    pen.textAlign = 'left';
    pen.fillText(`${SPAN_S} s ago`, left, height - 10);
    pen.textAlign = 'right';
    pen.fillText('now', right, height - 10);
    const thick = Math.max(1, ((right - left) * hop) / SPAN_S - 1);
    for (const bar of bars) {
      const at = x(bar.at) - thick;
      if (at < left) continue;
      pen.fillStyle = line;
      pen.fillRect(at, y(Math.min(hop, bar.total)), thick, bottom - y(Math.min(hop, bar.total)));
      pen.fillStyle = accent;
      if (bar.total > hop) pen.fillRect(at, y(bar.total), thick, Math.max(1, y(hop) - y(bar.total)));
      if (bar.dropped) {
        pen.fillStyle = bad;
        pen.fillRect(at, top, Math.max(2, thick), bottom - top);
      }
    }
  }
}

/** A colour as the canvas takes it: what light-dark() and the like come to. */
function resolved(element, color) {
  const before = element.style.color;
  element.style.color = color;
  const found = getComputedStyle(element).color;
  element.style.color = before;
  return found;
}

/** The next of 1, 2, 4, 10, … at or above a number, so that quarters are easy to read. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 10].find((step) => step * power >= value * (1 - 1e-9)) * power;
}

const spoken = (seconds, most) => (most >= 2 ? `${+seconds.toFixed(2)} s` : `${+(seconds * 1e3).toFixed(1)} ms`);
