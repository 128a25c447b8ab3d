/**
 * A WHIP publisher (RFC 9725): the ``Session`` that sends a stream. It knows nothing of cameras, tiles or the page.
 */

import { Session } from "./session.js";

const CONFLICT = 409;
const START_KBPS = 1500;

export class WhipPublisher extends Session {
  #stream;

  /**
   * @param {string} url  the WHIP endpoint
   * @param {MediaStream} stream  whose video is sent; it is the caller's to stop
   * @param {(state: "idle"|"joining"|"connected"|"waiting"|"refused", reason: string) => void} onState
   *   "refused": somebody else publishes there, or this is not to be published to
   */
  constructor(url, stream, onState) {
    super(url, onState);
    this.#stream = stream;
  }

  prepare(peer) {
    const [track] = this.#stream.getVideoTracks();
    offerLess(peer.addTransceiver(track, { direction: "sendonly", streams: [this.#stream] }));
  }

  answered({ answer }) {
    return sharpAtOnce(answer);
  }

  isFinal(error) {
    // After a lost connection the server may still wait for us to come back: that is not somebody else.
    const ours = error.status === CONFLICT && this.failures > 0;
    return error.status >= 400 && error.status < 500 && !ours;
  }
}

/**
 * Chromium begins with 0.3 Mbit/s, and so with a small picture, and takes 20 seconds to dare more. With this
 * it begins at the rate given, and goes down where the network cannot carry it; other browsers pass it over.
 */
function sharpAtOnce(answer) {
  return answer.replace(/^a=fmtp:\d+ (?!apt=)[^\r\n]*/gm, `$&;x-google-start-bitrate=${START_KBPS}`);
}

/** Only codecs that lookout decodes. */
function offerLess(transceiver) {
  const { codecs } = RTCRtpSender.getCapabilities("video");
  transceiver.setCodecPreferences?.(codecs.filter(({ mimeType }) => /\/(H264|VP8|rtx)$/i.test(mimeType)));
}
