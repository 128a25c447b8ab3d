/**
 * Takes the tracks that lookout sends in each H.264 access unit (stream/webrtc/sei.py) out of it on its way
 * to the decoder, and tells the page which frame they belong to; tracks.js reads them. Pictures pass untouched.
 */

const UUID = [0x7d, 0x2c, 0x1f, 0x0a, 0x5b, 0x1e, 0x4c, 0x7e, 0x9a, 0x86, 0x3f, 0x1d, 0x6c, 0x0b, 0x9e, 0x52];
const SEI = 6;
const USER_DATA_UNREGISTERED = 5;
const LAST_SLICE_TYPE = 5;

addEventListener("rtctransform", ({ transformer: { readable, writable } }) => {
  const read = new TransformStream({
    transform(frame, controller) {
      const record = recordIn(new Uint8Array(frame.data));
      if (record) postMessage({ rtpTimestamp: frame.getMetadata().rtpTimestamp ?? frame.timestamp, record });
      controller.enqueue(frame); // takes its data away
    },
  });
  readable.pipeThrough(read).pipeTo(writable).catch(() => {}); // ends with the connection
});

/** The record in an access unit in Annex-B form, or null. What comes after the first slice is not looked at. */
function recordIn(bytes) {
  for (let at = startCode(bytes, 0); at < bytes.length; ) {
    const type = bytes[at] & 0x1f;
    if (type > 0 && type <= LAST_SLICE_TYPE) return null;
    const next = startCode(bytes, at);
    if (type === SEI) {
      const record = message(unescaped(bytes.subarray(at + 1, next)));
      if (record) return record;
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

/** What follows the UUID of an SEI message of ours, or null. */
function message(bytes) {
  if (bytes[0] !== USER_DATA_UNREGISTERED) return null;
  let at = 1;
  let size = 0;
  while (bytes[at] === 255) size += bytes[at++];
  size += bytes[at++];
  const payload = bytes.subarray(at, at + size);
  return UUID.every((byte, place) => payload[place] === byte) ? payload.slice(UUID.length) : null;
}
