/**
 * What a viewer really gets: frames presented, codec, size, and how long a frame takes from the
 * network to the screen. It knows nothing of the server; the caller adds what the server says.
 */

export class Meter {
  #video;
  #frames = 0;
  #displayMs = 0;
  #displayed = 0;
  #since = performance.now();
  #before = null;
  #last = 0;

  /** @param {HTMLVideoElement} video @param {() => void} onFrame called for each frame presented */
  constructor(video, onFrame) {
    this.#video = video;
    const count = (now, frame) => {
      this.#frames++;
      this.#last = now;
      if (frame.receiveTime !== undefined) {
        this.#displayMs += Math.max(0, frame.expectedDisplayTime - frame.receiveTime);
        this.#displayed++;
      }
      onFrame();
      video.requestVideoFrameCallback(count);
    };
    video.requestVideoFrameCallback(count);
  }

  /** Milliseconds since a frame was last presented; Infinity before the first. */
  get silentMs() {
    return this.#last ? performance.now() - this.#last : Infinity;
  }

  forget() {
    this.#last = 0;
    this.#before = null;
  }

  /**
   * Figures since the last call; a figure that is not known is null.
   * @param {RTCPeerConnection} peer
   * @returns {Promise<{fps: number, codec: string|null, width: number, height: number,
   *   kbps: number|null, roundTripMs: number|null, displayMs: number|null, lost: number|null}>}
   */
  async read(peer) {
    const { inbound, codec, pair } = select(await peer.getStats());
    const seconds = (performance.now() - this.#since) / 1000;
    const displayMs = this.#displayed ? this.#displayMs / this.#displayed : processing(inbound, this.#before);
    const figures = {
      fps: this.#frames / seconds,
      codec: codec ? codec.mimeType.replace("video/", "") : null,
      width: this.#video.videoWidth,
      height: this.#video.videoHeight,
      kbps: rate(inbound, this.#before),
      roundTripMs: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      displayMs,
      lost: inbound?.packetsLost ?? null,
    };
    this.#before = inbound;
    this.#since = performance.now();
    this.#frames = this.#displayMs = this.#displayed = 0;
    return figures;
  }
}

function select(report) {
  let inbound = null;
  let transport = null;
  for (const entry of report.values()) {
    if (entry.type === "inbound-rtp" && entry.kind === "video") inbound = entry;
    if (entry.type === "transport") transport = entry;
  }
  return {
    inbound,
    codec: inbound && report.get(inbound.codecId),
    pair: transport && report.get(transport.selectedCandidatePairId),
  };
}

function rate(inbound, before) {
  if (!inbound || !before || inbound.timestamp <= before.timestamp) return null;
  return (8 * (inbound.bytesReceived - before.bytesReceived)) / (inbound.timestamp - before.timestamp);
}

/** Received to decoded, for browsers whose frames do not say when they were received. */
function processing(inbound, before) {
  if (!inbound?.totalProcessingDelay || !before) return null;
  const frames = inbound.framesDecoded - before.framesDecoded;
  return frames > 0 ? (1000 * (inbound.totalProcessingDelay - before.totalProcessingDelay)) / frames : null;
}
