/**
 * One camera on the page: its picture, its state in words, its figures. It streams only while it
 * is told that it can be seen. It knows nothing of the other tiles or of the layout.
 */

import { Overlay } from "./boxes.js";
import { overlaid } from "./choice.js";
import { Meter } from "./stats.js";
import { WhepPlayer } from "./whep.js";

/** State of a camera, as the API says it -> the words on the page. */
export const WORDS = {
  connecting: "Connecting",
  live: "Live",
  stalled: "Stalled",
  reconnecting: "Reconnecting",
  waiting: "Waiting",
  ended: "Ended",
  stopped: "Stopped",
};

const SETTLED_MS = 200;
const FROZEN_AFTER_MS = 3000; // and at least so many
const STARVED_AFTER_MS = 12000; // where bytes come but no picture: the server sends less in a moment
const FROZEN_AFTER_FRAMES = 5;

export class Tile {
  #part;
  #player;
  #meter;
  #overlay;
  #boxes;
  #detectors = {};
  #camera;
  #playing = false;
  #connection = "idle";
  #reason = "";
  #connectedAt = 0;
  #liveAt = 0;
  #reading = false;
  #receiving = false;
  #settling = 0;
  #refused = ""; // why the camera's own picture cannot be had

  /**
   * @param {object} camera  one entry of /api/cameras
   * @param {{boxes: "drawn"|"data"|"source"|"none", hidden: string[]}} choice  as of ``choose``
   * @param {() => void} onUnknown  called while boxes come of whose classes the names are not known
   */
  constructor(camera, choice, onUnknown) {
    this.element = document.querySelector("#tile").content.firstElementChild.cloneNode(true);
    this.#part = (selector) => this.element.querySelector(selector);
    this.id = camera.id;
    this.#part("h2").textContent = camera.id;
    this.#part(".full").hidden = !document.fullscreenEnabled;
    this.#part(".full").addEventListener("click", () => this.fillScreen());
    this.#meter = new Meter(this.#video, () => this.#presented());
    this.#overlay = new Overlay(this.#video, this.#part("canvas"), onUnknown);
    this.#boxes = choice.boxes;
    this.#player = new WhepPlayer(
      this.#address,
      (stream) => (this.#video.srcObject = stream),
      (state, reason) => this.#connected(state, reason),
      (receiver) => this.#boxes !== "drawn" && this.#overlay.attach(receiver),
      (answer) => this.#overlay.answered(answer),
    );
    this.choose(choice);
    this.update(camera);
    new ResizeObserver(() => this.#resized()).observe(this.#part(".stage"));
  }

  get #address() {
    const asIs = this.#boxes === "source" && !this.#refused;
    const query = this.#boxes === "drawn" ? "" : asIs ? "?rendition=source" : "?boxes=data";
    return `whep/${encodeURIComponent(this.id)}${query}`;
  }

  /** What is drawn over the picture now, for whoever wants to look: {width, height, tracks} or null. */
  get shown() {
    return this.#overlay.shown;
  }

  /** What runs, by name: the names and colours of the classes that this camera's detector finds. */
  set detectors(detectors) {
    this.#detectors = detectors;
    const own = this.#detector;
    if (own) this.#overlay.classes = own;
  }

  /** Boxes drawn into the picture by the server, over it by the page, or not at all; classes not to draw. */
  choose({ boxes, hidden }) {
    if (boxes !== this.#boxes) this.#refused = "";
    this.#boxes = boxes;
    this.#part("canvas").hidden = !overlaid(boxes);
    this.#overlay.hidden = hidden;
    this.#player.url = this.#address;
  }

  get #detector() {
    return this.#detectors[this.#camera?.detector];
  }

  get #video() {
    return this.#part("video");
  }

  /** Show what the API says of the camera now. */
  update(camera) {
    const came = camera.state === "live" && this.#camera?.state !== "live";
    if (camera.height !== this.#camera?.height) this.#resized();
    this.#camera = camera;
    this.detectors = this.#detectors;
    if (came) {
      this.#liveAt = performance.now();
      this.#player.hurry();
    }
    if (camera.width && camera.height) {
      this.#part(".stage").style.setProperty("--shape", `${camera.width} / ${camera.height}`);
    }
    const pictured = camera.last_picture_age_ms !== null;
    if (camera.state !== "live" && pictured && !this.#playing && !this.#video.poster) {
      this.#video.poster = `api/cameras/${encodeURIComponent(this.id)}/snapshot.jpg`;
    }
    this.#show();
  }

  /** Stream while seen; leave the server alone otherwise. The last picture stays. */
  set seen(seen) {
    if (seen) this.#fit();
    if (seen) this.#player.start();
    else this.#player.stop();
  }

  /** The server is back after an absence: it may know nothing of our session. */
  welcome() {
    if (this.#meter.silentMs > 1000) this.#player.renew();
  }

  /** @param {boolean} alone  whether this tile has the page to itself */
  link(alone) {
    const stage = this.#part(".stage");
    stage.href = alone ? "#/" : `#/${encodeURIComponent(this.id)}`;
    stage.setAttribute("aria-label", alone ? `${this.id}, back to all cameras` : `${this.id}, show alone`);
  }

  /** The whole screen, or back from it. */
  fillScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen();
  }

  async measure() {
    const peer = this.#player.peer;
    if (!peer || this.#reading) return;
    this.#reading = true;
    try {
      const figures = await this.#meter.read(peer);
      this.#receiving = figures.kbps > 0;
      this.#figures(figures);
    } finally {
      this.#reading = false;
    }
    if (this.#frozen) this.#player.renew();
    this.#show();
  }

  remove() {
    this.#player.stop();
    this.#overlay.detach();
    this.element.remove();
  }

  #resized() {
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#fit(), SETTLED_MS);
  }

  /** Ask for no more pixels than are shown. */
  #fit() {
    const { clientWidth, clientHeight } = this.#part(".stage");
    if (!clientHeight) return; // hidden
    const { width, height } = this.#camera;
    const shown = width && height ? Math.min(clientHeight, (clientWidth * height) / width) : clientHeight;
    this.#player.height = Math.ceil(shown * devicePixelRatio);
  }

  #presented() {
    if (this.#playing) return;
    this.#playing = true;
    this.#show();
  }

  #connected(state, reason) {
    this.#connection = state;
    this.#reason = reason;
    if (state === "connected") this.#connectedAt = performance.now();
    if (state !== "connected") {
      this.#playing = false;
      this.#meter.forget();
      this.#overlay.detach();
    }
    this.#show();
    if (state === "waiting" && this.#boxes === "source" && reason.startsWith("406 ")) this.#settleForLess(reason);
  }

  /** The camera's own picture is none for browsers: say why, and take the encoded one. */
  #settleForLess(reason) {
    this.#refused = reason.replace(/^406 |; leave .*$/g, "");
    this.#player.url = this.#address;
  }

  #show() {
    const { title, reason, tone } = this.#condition();
    const retryS = this.#camera.retry_in_s;
    this.element.dataset.tone = tone;
    this.element.dataset.state = this.#camera.state;
    write(this.#part(".state"), this.#camera.state === "live" && tone !== "live" ? title : WORDS[this.#camera.state]);
    write(this.#part(".notice b"), tone === "live" ? "" : title);
    write(this.#part(".notice span"), tone === "live" ? "" : reason);
    write(this.#part(".notice small"), retryS === null ? "" : `retrying in ${Math.ceil(retryS)} s`);
    const live = tone === "live" && this.#camera.objects !== null;
    write(this.#part(".objects"), live ? count(this.#camera.objects, "object") : "");
    if (tone !== "live") for (const name of [".fps", ".latency", ".codec", ".detail"]) write(this.#part(name), "");
  }

  /** What is worth saying first: the camera's own trouble, then the connection's, then the wait for it. */
  #condition() {
    const { state, reason } = this.#camera;
    if (state !== "live") {
      const tone = ["connecting", "waiting", "ended"].includes(state) ? "wait" : "down";
      return { title: WORDS[state] ?? state, reason: reason ?? "", tone };
    }
    if (this.#connection === "waiting") {
      return { title: "Joining again", reason: this.#reason, tone: "down" };
    }
    return this.#playing ? { title: "Live", reason: "", tone: "live" } : { title: "Joining", reason: "", tone: "wait" };
  }

  /** Camera and connection are up, but no pictures come: this session is dead, whatever it says. */
  get #frozen() {
    const { state, overlay, fps, detect_fps } = this.#camera;
    if (state !== "live" || this.#connection !== "connected" || document.hidden) return false;
    const rate = overlay === "exact" ? detect_fps : fps;
    const silentMs = Math.min(this.#meter.silentMs, performance.now() - Math.max(this.#connectedAt, this.#liveAt));
    const leastMs = this.#receiving ? STARVED_AFTER_MS : FROZEN_AFTER_MS;
    return silentMs > Math.max(leastMs, (1000 * FROZEN_AFTER_FRAMES) / (rate || 1));
  }

  #figures({ fps, codec, width, height, kbps, roundTripMs, displayMs, lost }) {
    write(this.#part(".fps"), `${fps.toFixed(fps < 9.95 ? 1 : 0)} fps`);
    write(this.#part(".codec"), codec ?? "");
    this.#part(".codec").title = this.#refused;
    const server = this.#camera.publish_age_ms;
    const known = [server, roundTripMs, displayMs].every((part) => part !== null && part !== undefined);
    const total = known ? server + roundTripMs / 2 + displayMs : null;
    const latency = this.#part(".latency");
    write(latency, known ? `≈ ${total.toFixed(0)} ms` : "");
    const parts = known
      ? `server ${server.toFixed(0)} + network ${(roundTripMs / 2).toFixed(1)} + browser ${displayMs.toFixed(0)} ms`
      : "";
    latency.title =
      "Estimated, from the frame's arrival at lookout to this screen. Server: age of the newest picture when " +
      "it was sent. Network: half the round trip. Browser: received to displayed. " +
      `The camera's own delay is not included. ${parts}`;
    const words = [
      `${width}×${height}`,
      kbps === null ? "" : `${(kbps / 1000).toFixed(1)} Mbit/s`,
      parts && `latency: ${parts}, without the camera's own`,
      `detected ${(this.#camera.detect_fps ?? 0).toFixed(0)} times a second` +
        (this.#detector ? ` by ${this.#detector.model}` : ""),
      `tracks: ${tracked(this.#camera.tracks)}`,
      `overlay ${this.#camera.overlay}`,
      lost ? count(lost, "packet") + " lost" : "",
      this.#refused && `${this.#refused}: the picture is encoded anew`,
    ];
    write(this.#part(".detail"), words.filter(Boolean).join("  ·  "));
  }
}

/** Change text only where it differs, so that a screen reader is not told the same thing each second. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tracks by the state of their lives, in words; nothing where there are none. */
function tracked(tracks) {
  const words = Object.entries(tracks).filter(([, number]) => number > 0);
  return words.map(([state, number]) => `${number} ${state}`).join(", ") || "none";
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
