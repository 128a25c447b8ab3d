/**
 * A WHEP player (draft-ietf-wish-whep): the ``Session`` that receives a camera. It knows nothing of cameras,
 * tiles or the page.
 */

import { Session } from "./session.js";

export class WhepPlayer extends Session {
  #height = 0;
  #asked = 0;
  #onStream;
  #onReceiver;
  #onAnswer;
  #track = null;

  /**
   * @param {string} url  the WHEP endpoint
   * @param {(stream: MediaStream) => void} onStream  called once for every join
   * @param {(state: "idle"|"joining"|"connected"|"waiting", reason: string) => void} onState
   * @param {(receiver: RTCRtpReceiver) => void} onReceiver  called for every join, before it is negotiated
   * @param {(answer: {h264: boolean, boxes: string|null}) => void} onAnswer  then, before anything is received:
   *   whether it will be H.264, and where boxes are to be had besides
   */
  constructor(url, onStream, onState, onReceiver, onAnswer) {
    super(url, onState);
    this.#onStream = onStream;
    this.#onReceiver = onReceiver;
    this.#onAnswer = onAnswer;
  }

  /** How many pixels high the picture is shown: the server may send a smaller one then. 0: not known. */
  set height(height) {
    if (height === this.#height) return;
    this.#height = height;
    if (this.address) this.#resize();
  }

  prepare(peer) {
    const transceiver = peer.addTransceiver("video", { direction: "recvonly" });
    const { receiver } = transceiver;
    offerLess(transceiver);
    showAtOnce(receiver);
    this.#track = receiver.track;
    this.#onReceiver(receiver);
  }

  endpoint(url) {
    this.#asked = this.#height;
    return sized(url, this.#height);
  }

  answered({ answer, boxes }) {
    if (this.#height !== this.#asked) this.#resize();
    this.#onAnswer({ h264: /^a=rtpmap:\d+ H264\//im.test(answer), boxes });
    return answer;
  }

  opened() {
    this.#onStream(new MediaStream([this.#track]));
  }

  #resize() {
    fetch(sized(this.address, this.#height), { method: "PUT" }).catch(() => {});
  }
}

function sized(url, height) {
  const address = new URL(url, location.href);
  if (height) address.searchParams.set("height", height);
  return address.href;
}

/** Leave out codecs that lookout never sends: half the offer, and so a sooner answer. */
function offerLess(transceiver) {
  const { codecs } = RTCRtpReceiver.getCapabilities("video");
  transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => /\/(H264|VP8|rtx)$/i.test(mimeType)));
}

/** Ask the browser to hold no picture back; where it cannot be asked, the assignment has no effect. */
function showAtOnce(receiver) {
  receiver.jitterBufferTarget = 0;
  receiver.playoutDelayHint = 0;
}
