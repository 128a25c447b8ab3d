/**
 * A WHEP player (draft-ietf-wish-whep): one POST joins, one DELETE leaves, and it joins again by
 * itself when the connection is lost. It knows nothing of cameras, tiles or the page.
 */

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
export const CONNECT_WITHIN_MS = 8000;
export const LOST_AFTER_MS = 2500;
const BOXES_RELATION = "urn:lookout:boxes";

export class WhepPlayer {
  #url;
  #height = 0;
  #onStream;
  #onState;
  #onReceiver;
  #onAnswer;
  #peer = null;
  #session = null;
  #joining = null;
  #wanted = false;
  #failures = 0;
  #timer = 0;

  /**
   * @param {string} url  the WHEP endpoint
   * @param {(stream: MediaStream) => void} onStream  called once for every join
   * @param {(state: "idle"|"joining"|"connected"|"waiting", reason: string) => void} onState
   * @param {(receiver: RTCRtpReceiver) => void} onReceiver  called for every join, before it is negotiated
   * @param {(answer: {h264: boolean, boxes: string|null}) => void} onAnswer  then, before anything is received:
   *   whether it will be H.264, and where boxes are to be had besides
   */
  constructor(url, onStream, onState, onReceiver, onAnswer) {
    this.#url = url;
    this.#onStream = onStream;
    this.#onState = onState;
    this.#onReceiver = onReceiver;
    this.#onAnswer = onAnswer;
  }

  /** Another endpoint: join there, if a stream is wanted. */
  set url(url) {
    if (url === this.#url) return;
    this.#url = url;
    this.renew();
  }

  /** How many pixels high the picture is shown: the server may send a smaller one then. 0: not known. */
  set height(height) {
    if (height === this.#height) return;
    this.#height = height;
    if (this.#session) fetch(sized(this.#session, height), { method: "PUT" }).catch(() => {});
  }

  /** The peer connection while there is one; its statistics are the caller's to read. */
  get peer() {
    return this.#peer;
  }

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#failures = 0;
    this.#join();
  }

  stop() {
    if (!this.#wanted) return;
    this.#wanted = false;
    this.#leave();
    this.#onState("idle", "");
  }

  /** Do not sit out a pause between two tries: there is reason to think that it works now. */
  hurry() {
    if (this.#wanted && !this.#peer) this.#join();
  }

  /** Join again at once: the present session gives no pictures. */
  renew() {
    if (!this.#wanted) return;
    this.#leave();
    this.#join();
  }

  async #join() {
    clearTimeout(this.#timer);
    this.#onState("joining", "");
    const joining = (this.#joining = {});
    const iceServers = await serversOf(this.#url);
    if (this.#joining !== joining) return; // left, or joined anew, meanwhile
    const peer = (this.#peer = new RTCPeerConnection({ iceServers }));
    const transceiver = peer.addTransceiver("video", { direction: "recvonly" });
    const { receiver } = transceiver;
    offerLess(transceiver);
    showAtOnce(receiver);
    this.#onReceiver(receiver);
    peer.addEventListener("connectionstatechange", () => this.#follow(peer));
    this.#timer = setTimeout(() => this.#lose(peer, "no connection"), CONNECT_WITHIN_MS);
    try {
      await peer.setLocalDescription();
      // Sent before any candidate is gathered: the server learns our address from our own checks. Only
      // through a TURN server can they not reach it, so candidates follow where there are such servers.
      const candidates = iceServers.length ? gathered(peer) : null;
      const height = this.#height;
      const { session, answer, boxes } = await post(sized(this.#url, height), peer.localDescription.sdp);
      if (this.#peer !== peer) return remove(session);
      this.#session = session;
      if (this.#height !== height) fetch(sized(session, this.#height), { method: "PUT" }).catch(() => {});
      candidates?.to((candidate) => trickle(session, candidate));
      this.#onAnswer({ h264: /^a=rtpmap:\d+ H264\//im.test(answer), boxes });
      await peer.setRemoteDescription({ type: "answer", sdp: answer });
      if (this.#peer === peer) this.#onStream(new MediaStream([receiver.track]));
    } catch (error) {
      this.#lose(peer, error.message, error.retryAfterMs);
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
      // "disconnected" often heals by itself; "connecting" has its own limit.
      const limit = state === "disconnected" ? LOST_AFTER_MS : CONNECT_WITHIN_MS;
      this.#timer = setTimeout(() => this.#lose(peer, "connection lost"), limit);
    }
  }

  #lose(peer, reason, atLeastMs = 0) {
    if (this.#peer !== peer) return;
    this.#leave();
    this.#timer = setTimeout(() => this.#join(), Math.max(pauseMs(this.#failures++), atLeastMs));
    this.#onState("waiting", reason);
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#joining = null;
    this.#peer?.close();
    this.#peer = null;
    if (this.#session) remove(this.#session);
    this.#session = null;
  }
}

/** How long to wait before trying again after so many failures. */
export function pauseMs(failures) {
  const jitter = 0.75 + Math.random() / 2; // many viewers must not come back in step
  return Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * jitter;
}

const SERVERS_LAST_MS = 3600_000; // well below what credentials last
const known = new Map();

/** The ICE servers that an endpoint's server tells of, asked for once an hour; none where it does not answer. */
export function serversOf(url) {
  const { origin } = new URL(url, location.href);
  const kept = known.get(origin);
  if (kept && performance.now() < kept.until) return kept.servers;
  const servers = fetch(url, { method: "OPTIONS", signal: AbortSignal.timeout(CONNECT_WITHIN_MS) })
    .then((response) => (response.ok ? iceServers(response.headers.get("Link")) : Promise.reject(response)))
    .catch(() => (known.delete(origin), [])); // joining will say what is wrong
  known.set(origin, { servers, until: performance.now() + SERVERS_LAST_MS });
  return servers;
}

/** Link headers (RFC 8288): of each its url and parameters. */
function links(header) {
  const found = (header ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+="(?:[^"\\]|\\.)*")*)/g);
  return [...found].map(([, url, rest]) => {
    const pairs = [...rest.matchAll(/([\w-]+)="((?:[^"\\]|\\.)*)"/g)];
    return { url, ...Object.fromEntries(pairs.map(([, key, value]) => [key, value.replace(/\\(.)/g, "$1")])) };
  });
}

/** Those with rel="ice-server" as what RTCPeerConnection takes. */
export function iceServers(header) {
  return links(header)
    .filter(({ rel }) => rel === "ice-server")
    .map(({ url, username, credential }) => (username ? { urls: url, username, credential } : { urls: url }));
}

/** The candidates that a connection gathers, from now on, to be handed to whoever will take them. */
export function gathered(peer) {
  const waiting = [];
  let take = (candidate) => waiting.push(candidate);
  peer.addEventListener("icecandidate", ({ candidate }) => candidate?.candidate && take(candidate));
  return {
    to(taker) {
      take = taker;
      waiting.splice(0).forEach(taker);
    },
  };
}

/** Tell the server of one candidate (RFC 8840). A lost one is made up for by the others. */
export function trickle(session, { candidate, sdpMid, usernameFragment }) {
  const body = [`a=ice-ufrag:${usernameFragment}`, `a=mid:${sdpMid}`, `a=${candidate}`, ""].join("\r\n");
  const headers = { "Content-Type": "application/trickle-ice-sdpfrag" };
  fetch(session, { method: "PATCH", headers, body }).catch(() => {});
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

/** An SDP offer -> the address of the session and the SDP answer; throws what ``refusal`` makes. */
export async function post(url, sdp) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/sdp" },
    body: sdp,
    signal: AbortSignal.timeout(CONNECT_WITHIN_MS),
  });
  if (!response.ok) throw await refusal(response);
  const location = response.headers.get("Location");
  const boxes = links(response.headers.get("Link")).find(({ rel }) => rel === BOXES_RELATION);
  return {
    session: location && new URL(location, response.url).href,
    boxes: boxes ? new URL(boxes.url, response.url).href : null,
    answer: await response.text(),
  };
}

/** An Error that carries what the server said, its status, and when it wants to be asked again. */
async function refusal(response) {
  const text = await response.text();
  let said = text;
  try {
    const problem = JSON.parse(text);
    said = problem.detail ?? problem.error ?? text;
  } catch {
    // Not JSON: shown as it is.
  }
  const error = new Error(`${response.status} ${String(said).slice(0, 200)}`.trim());
  error.status = response.status;
  error.retryAfterMs = 1000 * (Number(response.headers.get("Retry-After")) || 0);
  return error;
}

/** End a session. ``keepalive`` lets the request outlive the page; a lost one times out on the server. */
export function remove(session) {
  if (session) fetch(session, { method: "DELETE", keepalive: true }).catch(() => {});
}
