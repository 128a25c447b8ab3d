/**
 * A WHIP publisher (RFC 9725): one POST starts, one DELETE ends, and it starts again by itself when
 * the connection is lost. It knows nothing of cameras, tiles or the page.
 */

import { CONNECT_WITHIN_MS, LOST_AFTER_MS, gathered, pauseMs, post, remove, serversOf, trickle } from "./whep.js";

const CONFLICT = 409;
const START_KBPS = 1500;

export class WhipPublisher {
  #url;
  #stream;
  #onState;
  #peer = null;
  #session = null;
  #wanted = false;
  #failures = 0;
  #timer = 0;

  /**
   * @param {string} url  the WHIP endpoint
   * @param {MediaStream} stream  whose video is sent; it is the caller's to stop
   * @param {(state: "idle"|"joining"|"connected"|"waiting"|"refused", reason: string) => void} onState
   *   "refused" is for good: somebody else publishes there, or this is not to be published to
   */
  constructor(url, stream, onState) {
    this.#url = url;
    this.#stream = stream;
    this.#onState = onState;
  }

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#failures = 0;
    this.#publish();
  }

  stop() {
    if (!this.#wanted) return;
    this.#wanted = false;
    this.#leave();
    this.#onState("idle", "");
  }

  async #publish() {
    this.#onState("joining", "");
    const iceServers = await serversOf(this.#url);
    if (!this.#wanted) return;
    const peer = (this.#peer = new RTCPeerConnection({ iceServers }));
    const [track] = this.#stream.getVideoTracks();
    const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [this.#stream] });
    offerLess(transceiver);
    peer.addEventListener("connectionstatechange", () => this.#follow(peer));
    this.#timer = setTimeout(() => this.#lose(peer, "no connection"), CONNECT_WITHIN_MS);
    try {
      await peer.setLocalDescription();
      const candidates = iceServers.length ? gathered(peer) : null;
      const { session, answer } = await post(this.#url, peer.localDescription.sdp);
      if (this.#peer !== peer) return remove(session);
      this.#session = session;
      candidates?.to((candidate) => trickle(session, candidate));
      await peer.setRemoteDescription({ type: "answer", sdp: sharpAtOnce(answer) });
    } catch (error) {
      // After a lost connection the server may still wait for us to come back: that is not somebody else.
      const ours = error.status === CONFLICT && this.#failures > 0;
      if (error.status >= 400 && error.status < 500 && !ours) this.#refuse(peer, error.message);
      else this.#lose(peer, error.message, error.retryAfterMs);
    }
  }

  #follow(peer) {
    if (this.#peer !== peer) return;
    clearTimeout(this.#timer);
    const state = peer.connectionState;
    if (state === "connected") {
      this.#failures = 0;
      this.#onState("connected", "");
    } else if (state === "failed" || state === "closed") {
      this.#lose(peer, "connection lost");
    } else {
      const limit = state === "disconnected" ? LOST_AFTER_MS : CONNECT_WITHIN_MS;
      this.#timer = setTimeout(() => this.#lose(peer, "connection lost"), limit);
    }
  }

  #lose(peer, reason, atLeastMs = 0) {
    if (this.#peer !== peer) return;
    this.#leave();
    this.#timer = setTimeout(() => this.#publish(), Math.max(pauseMs(this.#failures++), atLeastMs));
    this.#onState("waiting", reason);
  }

  #refuse(peer, reason) {
    if (this.#peer !== peer) return;
    this.#wanted = false;
    this.#leave();
    this.#onState("refused", reason);
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#peer?.close();
    this.#peer = null;
    remove(this.#session);
    this.#session = null;
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
