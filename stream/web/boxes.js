/**
 * Boxes drawn by the page over a clean picture: each on the very frame that it belongs to. It takes the
 * tracks out of H.264 frames (sei-worker.js), or from a WebSocket where the codec cannot carry them or the
 * browser does not let a page look into frames, and draws when the video presents their frame, the way
 * stream/annotate.py draws into the picture. It knows nothing of tiles, cameras or signalling.
 */

import { tracksIn } from "./tracks.js";

const KEPT_LISTS = 8;
const KEPT = 64; // frames on their way through decoder and compositor are far fewer
const CELL = 2; // pixels: what shares one colour sample in the picture, and the grid that boxes keep to
const OPEN_AGAIN_MS = 1000;

export class Overlay {
  #video;
  #context;
  #receiver = null;
  #worker = null;
  #socket = null;
  #timer = 0;
  #byFrame = new Map();
  #shown = null;
  #presented = null; // the frame that is on the screen, whether or not its tracks have come
  #classes = new Map(); // by their keys: a picture's tracks may be of the model before
  #onUnknown;
  #hidden = new Set();

  /**
   * @param {HTMLVideoElement} video
   * @param {HTMLCanvasElement} canvas  laid out over the video, as large
   * @param {() => void} onUnknown  called while tracks are shown of whose classes the names are not known
   */
  constructor(video, canvas, onUnknown = () => {}) {
    this.#onUnknown = onUnknown;
    this.#video = video;
    this.#context = canvas.getContext("2d");
    const present = (now, frame) => {
      video.requestVideoFrameCallback(present);
      this.#present(frame.rtpTimestamp);
    };
    video.requestVideoFrameCallback(present);
    canvas.addEventListener("pointermove", (event) => (canvas.title = this.#words(event)));
  }

  /** The tracks on the screen now, and their frame; null where none came with it. */
  get shown() {
    return this.#shown;
  }

  /** @param {{classes_key: number, names: string[], colours: string[]}} classes  of the model that runs now */
  set classes(classes) {
    this.#classes.delete(classes.classes_key);
    this.#classes.set(classes.classes_key, classes);
    if (this.#classes.size > KEPT_LISTS) this.#classes.delete(this.#classes.keys().next().value);
  }

  /** Classes, by name, that are not to be drawn. */
  set hidden(names) {
    this.#hidden = new Set(names);
    this.#draw();
  }

  /** Take the tracks of what a receiver receives. Before it is negotiated: later Chromium lets nobody look. */
  attach(receiver) {
    this.detach();
    this.#receiver = receiver;
    if (typeof RTCRtpScriptTransform !== "function") return;
    this.#worker = new Worker(new URL("sei-worker.js", import.meta.url));
    this.#worker.onmessage = ({ data }) => this.#take(data.rtpTimestamp, data.record);
    receiver.transform = new RTCRtpScriptTransform(this.#worker);
  }

  /**
   * What was negotiated for the receiver attached, before it receives anything.
   * @param {{h264: boolean, boxes: string|null}} answer  whether its frames carry tracks; where else they can be had
   */
  answered({ h264, boxes }) {
    if (!this.#receiver || (h264 && this.#worker)) return;
    // The worker stays and finds nothing: in Chromium a transform that is taken away again ends the pictures.
    if (boxes) this.#listen(boxes.replace(/^http/, "ws"));
  }

  /** Messages are a frame's RTP timestamp and its record (stream/webrtc/boxes.py). */
  #listen(url) {
    const socket = (this.#socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#take(new DataView(data).getUint32(0), new Uint8Array(data, 4));
    socket.onclose = () => {
      if (this.#socket === socket) this.#timer = setTimeout(() => this.#listen(url), OPEN_AGAIN_MS);
    };
  }

  #take(rtpTimestamp, record) {
    const tracks = tracksIn(record);
    if (!tracks) return;
    this.#byFrame.set(rtpTimestamp, tracks);
    if (this.#byFrame.size > KEPT) this.#byFrame.delete(this.#byFrame.keys().next().value);
    if (rtpTimestamp === this.#presented) this.#present(rtpTimestamp);
  }

  detach() {
    clearTimeout(this.#timer);
    this.#worker?.terminate();
    this.#socket?.close();
    this.#worker = this.#socket = this.#receiver = null;
    this.#byFrame.clear();
    this.#shown = this.#presented = null;
    this.#draw();
  }

  #present(rtpTimestamp) {
    if (!this.#receiver) return;
    this.#presented = rtpTimestamp;
    this.#shown = this.#byFrame.get(rtpTimestamp) ?? null;
    this.#draw();
  }

  get #tracks() {
    return (this.#shown?.tracks ?? []).filter((track) => !this.#hidden.has(this.#name(track.class)));
  }

  get #known() {
    return this.#classes.get(this.#shown?.classes);
  }

  /** Nothing where the list is not known yet: a name of another model's would be wrong. */
  #name(index) {
    const known = this.#known;
    return known ? (known.names[index] ?? `class ${index}`) : "";
  }

  #draw() {
    const { canvas } = this.#context;
    const { videoWidth, videoHeight } = this.#video;
    if (canvas.width !== videoWidth || canvas.height !== videoHeight) {
      canvas.width = videoWidth;
      canvas.height = videoHeight;
    } else {
      this.#context.clearRect(0, 0, canvas.width, canvas.height);
    }
    const tracks = this.#tracks;
    if (tracks.length && !this.#known) this.#onUnknown();
    for (const track of tracks) outline(this.#context, track, this.#colour(track.class));
    for (const track of tracks) label(this.#context, track, this.#name(track.class), this.#colour(track.class));
  }

  #colour(index) {
    return this.#known?.colours[index] ?? "#888888";
  }

  /** What is under the pointer, in words. */
  #words(event) {
    const { canvas } = this.#context;
    const bounds = canvas.getBoundingClientRect();
    const scale = Math.min(bounds.width / canvas.width, bounds.height / canvas.height);
    const x = (event.clientX - bounds.left - (bounds.width - canvas.width * scale) / 2) / scale;
    const y = (event.clientY - bounds.top - (bounds.height - canvas.height * scale) / 2) / scale;
    const under = this.#tracks.filter(({ box: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2);
    return under
      .map((track) => {
        const seen = track.coasting ? "not seen now" : `score ${track.score.toFixed(2)}`;
        return `${this.#name(track.class)} ${track.id}: ${seen}, for ${track.ageS.toFixed(1)} s`;
      })
      .join("\n");
  }
}

/** Of an outline, in cells. */
function thickness({ width, height }) {
  return Math.max(1, roundHalfEven(Math.min(width, height) / 480));
}

/** The frame just inside a box, on the grid of cells; where it leaves the picture it is cut. */
export function outline(context, { box, coasting }, colour) {
  const { canvas } = context;
  const [left, top, right, bottom] = box.map((value) => roundHalfEven(value / CELL));
  const wide = thickness(canvas);
  context.fillStyle = colour;
  const columns = (canvas.width + 1) >> 1;
  const rows = (canvas.height + 1) >> 1;
  const [x1, x2] = [Math.max(left, 0), Math.min(right, columns)];
  const [y1, y2] = [Math.max(top, 0), Math.min(bottom, rows)];
  const dash = coasting ? 4 * wide : 0;
  for (const first of new Set([top, Math.max(bottom - wide, top)])) {
    fill(context, x1, Math.max(first, 0), x2, Math.min(first + wide, y2), dash);
  }
  for (const first of new Set([left, Math.max(right - wide, left)])) {
    fill(context, Math.max(first, 0), y1, Math.min(first + wide, x2), y2, dash);
  }
}

/** Fill cells; with ``dash``, that much and as much not, along the longer side. */
function fill(context, x1, y1, x2, y2, dash) {
  if (x2 <= x1 || y2 <= y1) return;
  const paint = (left, top, right, bottom) =>
    context.fillRect(CELL * left, CELL * top, CELL * (right - left), CELL * (bottom - top));
  if (!dash) paint(x1, y1, x2, y2);
  else if (x2 - x1 > y2 - y1) for (let x = x1; x < x2; x += 2 * dash) paint(x, y1, Math.min(x + dash, x2), y2);
  else for (let y = y1; y < y2; y += 2 * dash) paint(x1, y, x2, Math.min(y + dash, y2));
}

/** Above the box where there is room, else inside it; moved left to stay in the picture. */
function label(context, { box, coasting, id, score }, name, colour) {
  const { canvas } = context;
  const [x1, y1, x2, y2] = box;
  if (x2 <= 0 || y2 <= 0 || x1 >= canvas.width || y1 >= canvas.height) return;
  const size = Math.max(12, roundHalfEven(Math.min(canvas.width, canvas.height) / 42));
  const text = coasting ? ` ${name} ${id} ` : ` ${name} ${id} ${score.toFixed(2)} `;
  context.font = `${size}px system-ui, sans-serif`;
  const [width, height] = [context.measureText(text).width, size * 1.3];
  const x = Math.max(0, Math.min(x1, canvas.width - width));
  const y = y1 >= height ? y1 - height : Math.max(y1, 0);
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
  context.fillStyle = isLight(colour) ? "#000" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, x, y + height / 2);
}

/** Whether black contrasts more than white with a colour #rrggbb (WCAG 2 relative luminance). */
function isLight(colour) {
  const [red, green, blue] = [1, 3, 5]
    .map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) ** 2 > 1.05 * 0.05;
}

/** As NumPy's rint and Python's round: a half goes to the even neighbour. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
