/**
 * ``Session``: one WebRTC session with the server, opened by a POST, ended by a DELETE, and opened again by itself
 * when it is lost, with growing pauses. What WHEP (draft-ietf-wish-whep) and WHIP (RFC 9725) share; it knows nothing
 * of what flows.
 */

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
const CONNECT_WITHIN_MS = 8000;
const LOST_AFTER_MS = 2500;
const BOXES_RELATION = "urn:lookout:boxes";

export class Session {
  #url;
  #onState;
  #peer = null;
  #address = null;
  #opening = null;
  #wanted = false;
  #failures = 0;
  #timer = 0;

  /**
   * @param {string} url  the endpoint
   * @param {(state: "idle"|"joining"|"connected"|"waiting"|"refused", reason: string) => void} onState
   *   "refused" is for good
   */
  constructor(url, onState) {
    this.#url = url;
    this.#onState = onState;
  }

  // What kinds of sessions say for themselves:

  /** Add what is to flow; before anything is negotiated. */
  prepare(_peer) {}

  /** Where to POST, for ``url``. */
  endpoint(url) {
    return url;
  }

  /** The server has answered; returns the SDP to go on with. */
  answered({ answer }) {
    return answer;
  }

  /** The answer is set: what flows may come. */
  opened() {}

  /** Whether an answer of the server's is its last word. */
  isFinal(_error) {
    return false;
  }

  // For everybody:

  /** Another endpoint: open there, if a session is wanted. */
  set url(url) {
    if (url === this.#url) return;
    this.#url = url;
    this.renew();
  }

  /** The peer connection while there is one; its statistics are the caller's to read. */
  get peer() {
    return this.#peer;
  }

  /** The session's own address while it is open. */
  get address() {
    return this.#address;
  }

  /** How often in a row it was lost. */
  get failures() {
    return this.#failures;
  }

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#failures = 0;
    this.#open();
  }

  stop() {
    if (this.#wanted) this.#end("idle", "");
  }

  /** Do not sit out a pause between two tries: there is reason to think that it works now. */
  hurry() {
    if (this.#wanted && !this.#peer) this.#open();
  }

  /** Open anew at once: the present session is of no use. */
  renew() {
    if (!this.#wanted) return;
    this.#leave();
    this.#open();
  }

  async #open() {
    clearTimeout(this.#timer);
    this.#onState("joining", "");
    const opening = (this.#opening = {});
    const iceServers = await serversOf(this.#url);
    if (this.#opening !== opening) return; // left, or opened anew, meanwhile
    const peer = (this.#peer = new RTCPeerConnection({ iceServers }));
    this.prepare(peer);
    peer.addEventListener("connectionstatechange", () => this.#follow(peer));
    this.#timer = setTimeout(() => this.#lose(peer, "no connection"), CONNECT_WITHIN_MS);
    try {
      await peer.setLocalDescription();
      // Sent before any candidate is gathered: the server learns our address from our own checks. Only
      // through a TURN server can they not reach it, so candidates follow where there are such servers.
      const candidates = iceServers.length ? gathered(peer) : null;
      const posted = await post(this.endpoint(this.#url), peer.localDescription.sdp);
      if (this.#peer !== peer) return remove(posted.address);
      this.#address = posted.address;
      candidates?.to((candidate) => trickle(posted.address, candidate));
      await peer.setRemoteDescription({ type: "answer", sdp: this.answered(posted) });
      if (this.#peer === peer) this.opened();
    } catch (error) {
      if (this.#peer === peer && this.isFinal(error)) this.#end("refused", error.message);
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
      // "disconnected" often heals by itself; "connecting" has its own limit.
      const limit = state === "disconnected" ? LOST_AFTER_MS : CONNECT_WITHIN_MS;
      this.#timer = setTimeout(() => this.#lose(peer, "connection lost"), limit);
    }
  }

  #lose(peer, reason, atLeastMs = 0) {
    if (this.#peer !== peer) return;
    this.#leave();
    this.#timer = setTimeout(() => this.#open(), Math.max(pauseMs(this.#failures++), atLeastMs));
    this.#onState("waiting", reason);
  }

  #end(state, reason) {
    this.#wanted = false;
    this.#leave();
    this.#onState(state, reason);
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#opening = null;
    this.#peer?.close();
    this.#peer = null;
    remove(this.#address);
    this.#address = null;
  }
}

/** How long to wait before trying again after so many failures. */
function pauseMs(failures) {
  const jitter = 0.75 + Math.random() / 2; // many viewers must not come back in step
  return Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * jitter;
}

const SERVERS_LAST_MS = 3600_000; // well below what credentials last
const known = new Map();

/** The ICE servers that an endpoint's server tells of, asked for once an hour; none where it does not answer. */
function serversOf(url) {
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
function gathered(peer) {
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
function trickle(session, { candidate, sdpMid, usernameFragment }) {
  const body = [`a=ice-ufrag:${usernameFragment}`, `a=mid:${sdpMid}`, `a=${candidate}`, ""].join("\r\n");
  const headers = { "Content-Type": "application/trickle-ice-sdpfrag" };
  fetch(session, { method: "PATCH", headers, body }).catch(() => {});
}

/** An SDP offer -> the address of the session, the SDP answer, and where its boxes are; throws what ``refusal`` makes. */
async function post(url, sdp) {
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
    address: location && new URL(location, response.url).href,
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
function remove(session) {
  if (session) fetch(session, { method: "DELETE", keepalive: true }).catch(() => {});
}
