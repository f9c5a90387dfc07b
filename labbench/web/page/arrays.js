/* Arrays over the network and in JSON: raw little-endian values. */

const KINDS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array };

export async function bytes(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url.split('/').pop()}: the server says ${answer.status}`);
  return answer.arrayBuffer();
}

export async function array(type, url) {
  return new KINDS[type](await bytes(url));
}

export function base64(view) {
  const raw = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  let text = '';
  for (let i = 0; i < raw.length; i += 0x8000) text += String.fromCharCode(...raw.subarray(i, i + 0x8000));
  return btoa(text);
}
