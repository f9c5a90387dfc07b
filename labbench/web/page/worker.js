/* A session in a worker: {id, name, argument} in, {id, value} or {id, error} out. */

import { functions } from './session.js';
import { describe } from './labels.js';

self.onmessage = async ({ data: { id, name, argument } }) => {
  try {
    self.postMessage({ id, value: await functions[name](argument) });
  } catch (error) {
    self.postMessage({ id, error: describe(error) });
  }
};
