// The model of a live run: a session of session.js whose audio input is what comes, other inputs as they were given.

import { LogMel } from '../mel.js';
import { functions, infer } from '../session.js';

/** {session: for session.js, audio: {input, shape, features: settings of mel.js | null}} -> {opened, features, run, close}. */
export async function openModel({ session, audio }) {
  const opened = await functions.open({ ...session, where: 'worker' });
  if (opened.error) return { error: opened.error, opened };
  const mel = audio.features ? new LogMel(audio.features) : null;
  return {
    opened,
    features: (samples) => (mel ? mel.compute(samples).values : samples),
    run: (values) => infer({ [audio.input]: { type: 'float32', shape: audio.shape, data: values } }),
    close: () => functions.close(),
  };
}
