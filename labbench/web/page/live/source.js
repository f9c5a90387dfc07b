// Where the sound comes from: made in the page, a decoded file, or the microphone. None of it is played aloud.

/** The browser gives no such sound; the message is why. */
export class SourceError extends Error {}

/** Connects a source to `tap`; gives {name, track, stop()}. */
export async function connect(context, source, tap) {
  const silent = new GainNode(context, { gain: 0 }); // a node that leads nowhere is not run
  tap.connect(silent).connect(context.destination);
  const disconnect = (node) => (node.disconnect(), tap.disconnect(), silent.disconnect());
  if (source === 'microphone') return microphone(context, tap, disconnect);
  const made = source === 'signal';
  const node = new AudioBufferSourceNode(context, { buffer: made ? signal(context) : source, loop: true });
  node.connect(tap);
  node.start();
  return { name: made ? 'signal' : 'file', track: null, stop: () => (node.stop(), disconnect(node)) };
}

async function microphone(context, tap, disconnect) {
  if (!navigator.mediaDevices?.getUserMedia)
    throw new SourceError('this browser offers no microphone (mediaDevices.getUserMedia)');
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    throw new SourceError(`the browser refuses the microphone: ${error.name}${error.message ? ` (${error.message})` : ''}`);
  }
  const [track] = stream.getAudioTracks();
  const release = () => stream.getTracks().forEach((one) => one.stop());
  try {
    const node = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
    node.connect(tap);
    const { sampleRate = null, latency = null } = track.getSettings();
    return {
      name: 'microphone',
      track: { label: track.label, sample_rate: sampleRate, latency_s: latency },
      stop: () => (disconnect(node), release()),
    };
  } catch (error) {
    release();
    throw new SourceError(`the browser cannot bring the microphone to ${context.sampleRate} Hz: ${error.message}`);
  }
}

/** Eight seconds like speech in what matters here: bursts of harmonics between pauses, with a little noise; the same each time. */
function signal(context) {
  const rate = context.sampleRate;
  const buffer = new AudioBuffer({ length: 8 * rate, sampleRate: rate });
  const out = buffer.getChannelData(0);
  let state = 1;
  for (let i = 0; i < out.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    const t = i / rate;
    const open = Math.max(0, Math.sin(2 * Math.PI * 1.5 * t)); // syllables
    const pitch = 2 * Math.PI * 140 * t + 2 * Math.sin(2 * Math.PI * 0.7 * t);
    const voice = Math.sin(pitch) + 0.5 * Math.sin(2 * pitch) + 0.25 * Math.sin(5 * pitch);
    out[i] = 0.2 * open * voice + 0.01 * (state / 2 ** 31 - 1);
  }
  return buffer;
}
