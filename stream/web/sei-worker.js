/**
 * Reads the tracks that lookout sends in each H.264 access unit (stream/webrtc/sei.py) on their way to
 * the decoder, and tells the page which frame they belong to. Pictures pass untouched.
 */

const UUID = [0x7d, 0x2c, 0x1f, 0x0a, 0x5b, 0x1e, 0x4c, 0x7e, 0x9a, 0x86, 0x3f, 0x1d, 0x6c, 0x0b, 0x9e, 0x52];
const VERSION = 1;
const SEI = 6;
const USER_DATA_UNREGISTERED = 5;
const LAST_SLICE_TYPE = 5;
const HEAD_BYTES = 7;
const TRACK_BYTES = 26;

addEventListener("rtctransform", ({ transformer: { readable, writable } }) => {
  const read = new TransformStream({
    transform(frame, controller) {
      const tracks = tracksIn(new Uint8Array(frame.data));
      if (tracks) postMessage({ rtpTimestamp: frame.getMetadata().rtpTimestamp ?? frame.timestamp, ...tracks });
      controller.enqueue(frame); // takes its data away
    },
  });
  readable.pipeThrough(read).pipeTo(writable).catch(() => {}); // ends with the connection
});

/** The tracks of an access unit in Annex-B form, or null. What comes after the first slice is not looked at. */
function tracksIn(bytes) {
  for (let at = startCode(bytes, 0); at < bytes.length; ) {
    const type = bytes[at] & 0x1f;
    if (type > 0 && type <= LAST_SLICE_TYPE) return null;
    const next = startCode(bytes, at);
    if (type === SEI) {
      const tracks = message(unescaped(bytes.subarray(at + 1, next)));
      if (tracks) return tracks;
    }
    at = next;
  }
  return null;
}

/** Where the NAL unit after the next start code begins; the end where there is none. */
function startCode(bytes, from) {
  for (let at = from; at + 2 < bytes.length; at++) {
    if (bytes[at] === 0 && bytes[at + 1] === 0 && bytes[at + 2] === 1) return at + 3;
  }
  return bytes.length;
}

/** Without the bytes that keep data from looking like a start code (H.264 7.4.1). */
function unescaped(bytes) {
  const plain = new Uint8Array(bytes.length);
  let length = 0;
  let zeros = 0;
  for (const byte of bytes) {
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    zeros = byte === 0 ? zeros + 1 : 0;
    plain[length++] = byte;
  }
  return plain.subarray(0, length);
}

function message(bytes) {
  if (bytes[0] !== USER_DATA_UNREGISTERED) return null;
  let at = 1;
  let size = 0;
  while (bytes[at] === 255) size += bytes[at++];
  size += bytes[at++];
  const payload = bytes.subarray(at, at + size);
  if (payload.length < UUID.length + HEAD_BYTES || UUID.some((byte, place) => payload[place] !== byte)) return null;
  const view = new DataView(payload.buffer, payload.byteOffset + UUID.length, payload.length - UUID.length);
  const count = view.getUint16(5);
  if (view.getUint8(0) !== VERSION || view.byteLength < HEAD_BYTES + count * TRACK_BYTES) return null;
  return {
    width: view.getUint16(1),
    height: view.getUint16(3),
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
