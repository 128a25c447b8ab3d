/**
 * The page: asks the server which cameras there are, keeps one tile for each, and lays them out,
 * all in a grid (``#/``) or one alone (``#/front``). Pictures come by WHEP, one session a tile.
 */

import { Choice } from "./choice.js";
import { Device } from "./device.js";
import { Tile, WORDS, write } from "./tile.js";

const POLL_MS = 1000;
const ABOUT_EVERY = 3; // polls
const UNSEEN_MS = 1500; // scrolling past must not hang up
const HIDDEN_MS = 10000; // nor a glance at another tab

const main = document.querySelector("main");
const nav = document.querySelector(".cameras");
const banner = document.querySelector(".banner");
const blank = document.querySelector(".blank");

/** @type {Map<string, Tile>} */
const tiles = new Map();
const onScreen = new Set();
const goodbyes = new Map();
const choice = new Choice(document.querySelector(".boxes"), () => tiles.forEach((tile) => tile.choose(choice)));
const device = new Device(document.querySelector(".device"));
/** What runs, by the name of the detector: its model, device, and the names and colours of its classes. */
let detectors = {};
let polls = 0;
let asking = false;
let faults = [];

const screen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const tile = tileOf(target);
    if (!tile) continue;
    if (isIntersecting) onScreen.add(tile);
    else onScreen.delete(tile);
    attend(tile, UNSEEN_MS);
  }
});

function tileOf(element) {
  return [...tiles.values()].find((tile) => tile.element === element);
}

/** Start a tile that can be seen at once; stop one that cannot after a grace. */
function attend(tile, graceMs) {
  clearTimeout(goodbyes.get(tile));
  goodbyes.delete(tile);
  if (onScreen.has(tile) && !document.hidden) tile.seen = true;
  else goodbyes.set(tile, setTimeout(() => (tile.seen = false), graceMs));
}

/** The camera that has the page to itself, or null. The address says which, so Back works. */
function chosen() {
  const [first] = tiles.keys();
  if (tiles.size === 1) return first;
  const id = location.hash.replace(/^#\/?/, ""); // an id has no characters that need escaping
  return tiles.has(id) ? id : null;
}

function layOut() {
  const alone = chosen();
  main.className = alone === null ? "grid" : "alone";
  for (const [id, tile] of tiles) {
    tile.element.hidden = alone !== null && id !== alone;
    tile.link(alone !== null);
  }
  for (const link of nav.children) {
    link.toggleAttribute("data-here", link.dataset.id === (alone ?? ""));
    if (link.hasAttribute("data-here")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = alone === null ? "lookout" : `${alone} · lookout`;
}

/** Bring tiles and list in line with the cameras that the server has now. */
function reconcile(cameras) {
  const ids = new Set(cameras.map((camera) => camera.id));
  for (const [id, tile] of tiles) if (!ids.has(id)) drop(id, tile);
  let changed = false;
  for (const camera of cameras) {
    const tile = tiles.get(camera.id);
    if (tile) tile.update(camera);
    else changed = add(camera);
  }
  if (changed || nav.children.length !== listed(cameras)) list(cameras);
  for (const camera of cameras) mark(camera);
  device.cameras = cameras.filter(({ source }) => source === "whip").map(({ id }) => id);
  blank.hidden = cameras.length > 0;
  if (!cameras.length) {
    write(blank, "No cameras yet. Start lookout with one: lookout watch rtsp://… , or lookout watch demo");
  }
  main.removeAttribute("aria-busy");
}

function add(camera) {
  const tile = new Tile(camera, choice, askAgain);
  tile.detectors = detectors;
  tiles.set(camera.id, tile);
  main.append(tile.element);
  screen.observe(tile.element);
  return true;
}

function drop(id, tile) {
  screen.unobserve(tile.element);
  clearTimeout(goodbyes.get(tile));
  goodbyes.delete(tile);
  onScreen.delete(tile);
  tiles.delete(id);
  tile.remove();
}

function listed(cameras) {
  return cameras.length > 1 ? cameras.length + 1 : 0;
}

/** The list in the header: all, then each camera; a single camera needs none. */
function list(cameras) {
  const entries = listed(cameras) ? ["", ...cameras.map((camera) => camera.id)] : [];
  nav.replaceChildren(
    ...entries.map((id) => {
      const link = document.createElement("a");
      link.href = `#/${encodeURIComponent(id)}`;
      link.dataset.id = id;
      link.textContent = id || "All";
      return link;
    }),
  );
  layOut();
}

function mark(camera) {
  const link = [...nav.children].find((each) => each.dataset.id === camera.id);
  if (!link) return;
  link.dataset.state = camera.state;
  link.title = [WORDS[camera.state], camera.reason].filter(Boolean).join(": ");
}

/** One line above everything; ``cutOff`` says that the pictures below may be old. */
function say(text, cutOff = false) {
  write(banner, text);
  banner.hidden = !text;
  document.body.toggleAttribute("data-cut-off", cutOff);
}

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(5000), cache: "no-store" });
  if (response.status === 401) throw new Error("This server asks for a token, and this page has none or a wrong one.");
  if (!response.ok) throw new Error(`The server answered ${response.status} to ${path}.`);
  return response.json();
}

async function poll() {
  try {
    const cameras = await ask("api/cameras");
    reconcile(cameras);
    if (document.body.hasAttribute("data-cut-off")) onScreen.forEach((tile) => tile.welcome());
    if (polls++ % ABOUT_EVERY === 0) await about();
    say(faults.join(" "));
    await Promise.all([...onScreen].map((tile) => tile.measure()));
  } catch (error) {
    const away = error instanceof TypeError || error.name === "TimeoutError";
    say(away ? "lookout does not answer. Trying again…" : error.message, true);
    polls = 0;
    if (!tiles.size) write(blank, "");
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

/** Other models run than was last told: ask at once, but not for every picture. */
function askAgain() {
  if (asking) return;
  asking = true;
  setTimeout(() => (asking = false), POLL_MS);
  about().catch(() => {}); // the next poll says what is wrong
}

async function about() {
  const app = await ask("api/app");
  faults = [
    app.fault && `The detector fails, so pictures come without boxes: ${app.fault}`,
    app.config_fault && `The edited configuration is refused, what was in force stays: ${app.config_fault}`,
  ].filter(Boolean);
  detectors = app.detectors;
  tiles.forEach((tile) => (tile.detectors = detectors));
  const all = Object.values(detectors);
  const names = [...new Set(all.flatMap((detector) => detector.names))];
  choice.names = names;
  const line = document.querySelector(".about");
  line.title = `lookout ${app.version}; finds: ${names.join(", ")}`;
  line.replaceChildren(
    ...[...new Set(all.flatMap(({ model, device }) => [model, device]))].map((text) => {
      const chip = document.createElement("span");
      chip.textContent = text;
      return chip;
    }),
  );
}

/** Escape: all cameras. Arrows: the one before or after. f: the whole screen. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const alone = chosen();
  if (event.key === "Escape" && alone !== null) location.hash = "#/";
  if (alone === null) return;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) {
    const ids = [...tiles.keys()];
    location.hash = `#/${encodeURIComponent(ids.at((ids.indexOf(alone) + step) % ids.length))}`;
  } else if (event.key === "f") {
    tiles.get(alone).fillScreen();
  }
}

addEventListener("hashchange", layOut);
addEventListener("keydown", onKey);
addEventListener("pagehide", () => {
  tiles.forEach((tile) => (tile.seen = false));
  device.stop();
});
addEventListener("pageshow", (event) => event.persisted && onScreen.forEach((tile) => attend(tile, 0)));
document.addEventListener("visibilitychange", () => tiles.forEach((tile) => attend(tile, HIDDEN_MS)));
poll();
