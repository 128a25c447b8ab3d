/**
 * The part of the header that publishes this device's camera: which of the server's cameras it becomes,
 * one button that starts and stops it, and a line that says how it goes. It knows nothing of tiles.
 */

import { WhipPublisher } from "./publish.js";

const WANTED = {
  video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
};
const START = "Use this device's camera";
const STOP = "Stop publishing";

/** What getUserMedia's errors mean to whoever pressed the button. */
const TROUBLE = {
  NotAllowedError: "This browser may not use the camera. Allow it for this page, then try again.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "The camera is in use by another program.",
};

export class Device {
  #element;
  #part;
  #stream = null;
  #publisher = null;
  #asking = false;
  #lock = null;

  /** @param {HTMLElement} element  a button, a select and a status line */
  constructor(element) {
    this.#element = element;
    this.#part = (selector) => element.querySelector(selector);
    this.#part("button").addEventListener("click", () => (this.#stream ? this.stop() : this.#start()));
    document.addEventListener("visibilitychange", () => document.hidden || this.#stayAwake());
    this.#show("");
  }

  /** The cameras that can be published to now. The part is hidden where there are none, or no way to publish. */
  set cameras(ids) {
    const select = this.#part("select");
    if ([...select.options].map((option) => option.value).join() !== ids.join()) {
      const chosen = select.value;
      select.replaceChildren(...ids.map((id) => new Option(id, id)));
      if (ids.includes(chosen)) select.value = chosen;
    }
    select.hidden = ids.length < 2;
    // Browsers give cameras only to pages from this machine or over HTTPS.
    this.#element.hidden = !this.#stream && (!ids.length || !navigator.mediaDevices);
  }

  stop(reason = "") {
    this.#publisher?.stop();
    this.#publisher = null;
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.#lock?.release();
    this.#lock = null;
    this.#show(reason);
  }

  async #start() {
    if (this.#asking) return;
    this.#asking = true;
    this.#show("Asking for the camera…");
    const id = this.#part("select").value;
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia(WANTED);
    } catch (error) {
      this.#show(TROUBLE[error.name] ?? `The camera cannot be used: ${error.message}`);
      return;
    } finally {
      this.#asking = false;
    }
    const [track] = this.#stream.getVideoTracks();
    track.addEventListener("ended", () => this.stop("The camera was taken away."));
    track.contentHint = "motion";
    const url = `whip/${encodeURIComponent(id)}`;
    this.#publisher = new WhipPublisher(url, this.#stream, (state, reason) => this.#say(id, state, reason));
    this.#publisher.start();
    this.#stayAwake();
  }

  /** A phone that dims its screen stops its camera. A page that was hidden has to ask anew. */
  async #stayAwake() {
    if (!this.#stream) return;
    try {
      this.#lock = await navigator.wakeLock?.request("screen");
    } catch {
      // Refused, as with a low battery: publishing goes on for as long as it can.
    }
  }

  #say(id, state, reason) {
    if (state === "refused") return this.stop(`Not published: ${reason}`);
    const words = {
      joining: `Publishing to ${id}…`,
      connected: `Publishing to ${id}`,
      waiting: `Publishing again to ${id}: ${reason}`,
    };
    if (state in words) this.#show(words[state], state);
  }

  #show(text, state = "idle") {
    const publishing = this.#stream !== null;
    this.#element.dataset.state = state;
    this.#part("button").textContent = publishing ? STOP : START;
    this.#part("select").disabled = publishing;
    this.#part("[role=status]").textContent = text;
  }
}
