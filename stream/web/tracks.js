/**
 * The tracks of one picture, out of the bytes that lookout sends (stream/webrtc/sei.py). It knows nothing of
 * the ways on which they come.
 */

const VERSION = 2;
const HEAD_BYTES = 11;
const TRACK_BYTES = 26;

/**
 * @param {Uint8Array} record
 * @returns {{width: number, height: number, classes: number, tracks: object[]}|null}  ``classes`` is the key of the
 *   list that their classes count in; null for what is no such record
 */
export function tracksIn(record) {
  if (record.length < HEAD_BYTES) return null;
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const count = view.getUint16(9);
  if (view.getUint8(0) !== VERSION || record.length < HEAD_BYTES + count * TRACK_BYTES) return null;
  return {
    width: view.getUint16(1),
    height: view.getUint16(3),
    classes: view.getUint32(5),
    tracks: Array.from({ length: count }, (_, place) => track(view, HEAD_BYTES + place * TRACK_BYTES)),
  };
}

function track(view, at) {
  return {
    id: view.getUint32(at),
    class: view.getUint16(at + 4),
    score: view.getUint8(at + 6) / 255,
    coasting: (view.getUint8(at + 7) & 1) === 1,
    ageS: view.getUint16(at + 8) / 10,
    box: [0, 4, 8, 12].map((offset) => view.getFloat32(at + 10 + offset)),
  };
}
