// The picture of the map. Only what is in view is drawn; what is too small for words is colour.

import { address, count } from "./words.js";

/** The sizes of a cell, in pixels, from which on it has a border, words, figures, addresses. */
const BORDER_FROM = 7;
const WORDS_FROM = 76;
const FIGURES_FROM = 104;
export const ADDRESSES_FROM = 170;
/** The steps of the colours for fill. */
const STEPS = 24;

let colours = null;

/** Reads the colours of the scheme from the style sheet. */
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["page", "card", "line", "text", "soft", "free", "spare", "quarantined", "parked",
    "gone", "gap", "select", "accent", "cool"];
  colours = Object.fromEntries(names.map((name) => [name, of(name)]));
  const [low, high] = [rgb(of("fill-0")), rgb(of("fill-1"))];
  colours.fill = Array.from({ length: STEPS + 1 }, (_, step) => mix(low, high, step / STEPS));
  const dark = document.documentElement.dataset.theme === "dark";
  colours.owner = (at) => `hsl(${(205 + at * 137.508) % 360} ${dark ? "30% 52%" : "36% 50%"})`;
  colours.onFill = (step) => (step > STEPS * 0.45 ? (dark ? "#0e1a22" : "#ffffff") : colours.text);
  colours.onOwner = dark ? "#0e1a22" : "#ffffff";
  return colours;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mix(low, high, share) {
  return `rgb(${low.map((from, at) => Math.round(from + (high[at] - from) * share)).join(" ")})`;
}

export function fillStep(part) {
  if (part.used === null || part.usable === 0) return 0;
  return Math.min(STEPS, Math.ceil((STEPS * part.used) / part.usable));
}

export function draw(canvas, view) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  if (!colours) readColours();
  const g = canvas.getContext("2d", { alpha: false });
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.fillStyle = colours.page;
  g.fillRect(0, 0, view.width, view.height);
  const { scale, columns, x, y } = view;
  const rows = Math.ceil(view.cells.length / columns);
  const first = (at) => Math.max(0, Math.floor(-at / scale));
  const behind = (at, size, all) => Math.min(all, Math.ceil((size - at) / scale));
  const [top, bottom] = [first(y), behind(y, view.height, rows)];
  const [left, right] = [first(x), behind(x, view.width, columns)];
  const inset = scale >= BORDER_FROM ? Math.min(3, scale * 0.06) : 0;
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const cell = view.cells[row * columns + column];
      if (!cell) break;
      const s = scale - 2 * inset;
      drawCell(g, view, cell, { x: x + column * scale + inset, y: y + row * scale + inset, s });
    }
  }
  if (view.chosen) mark(g, view, view.chosen);
}

function drawCell(g, view, cell, box) {
  if (cell.gap !== null) return drawGap(g, view, cell, box);
  if (cell.parts.length === 0 || cell.parts[0].width < 1) {
    g.fillStyle = colours.free;
    g.fillRect(box.x, box.y, box.s, box.s);
  }
  for (const part of cell.parts) {
    const [x, w] = [box.x + part.from * box.s, part.width * box.s];
    drawPart(g, view, part, { x, y: box.y, w, h: box.s });
  }
}

/** A gap: three dots, and how many blocks would fit. */
function drawGap(g, view, cell, box) {
  g.fillStyle = colours.gap;
  const middle = box.y + box.s / 2;
  if (view.scale < BORDER_FROM) {
    g.fillRect(box.x, middle, box.s, Math.max(1, box.s / 6));
    return;
  }
  for (const at of [0.3, 0.5, 0.7]) {
    g.fillRect(box.x + box.s * at - 1, middle - 1, 2, 2);
  }
  if (view.scale < WORDS_FROM) return;
  g.fillStyle = colours.soft;
  words(g, `${count(Number(cell.gap))} unused`, box.x + 6, middle + 20, box.s - 12);
}

function drawPart(g, view, part, box) {
  const node = view.nodes[part.owner];
  const other = view.node !== null && node.node !== view.node;
  g.globalAlpha = other ? 0.16 : 1;
  const large = view.scale >= BORDER_FROM;
  const ink = body(g, view, part, box, large);
  if (large && !node.live && part.state !== "parked" && part.state !== "quarantined") {
    g.fillStyle = colours.gone;
    g.fillRect(box.x, box.y, box.w, Math.max(2, Math.min(5, box.h * 0.08)));
  }
  if (view.scale >= WORDS_FROM && box.w >= WORDS_FROM - 10) inWords(g, view, part, box, ink);
  g.globalAlpha = 1;
}

/** The colour of a block. Returns the colour of words on it. */
function body(g, view, part, box, large) {
  if (part.state === "active") {
    const step = fillStep(part);
    g.fillStyle = view.mode === "owner" ? colours.owner(part.owner) : colours.fill[step];
    g.fillRect(box.x, box.y, box.w, box.h);
    return view.mode === "owner" ? colours.onOwner : colours.onFill(step);
  }
  if (part.state === "spare") {
    const colour = view.mode === "owner" ? colours.owner(part.owner) : colours.spare;
    g.fillStyle = large ? colours.card : colours.free;
    g.fillRect(box.x, box.y, box.w, box.h);
    if (large) {
      g.strokeStyle = colour;
      g.lineWidth = Math.min(2, view.scale / 10);
      const half = g.lineWidth / 2;
      g.strokeRect(box.x + half, box.y + half, box.w - 2 * half, box.h - 2 * half);
    }
    return colours.text;
  }
  g.fillStyle = part.state === "quarantined" ? colours.quarantined : colours.parked;
  g.fillRect(box.x, box.y, box.w, box.h);
  return colours.page;
}

/** Draws a text, cut at its end if it is too long; `tail`: at its start, which says least. */
function words(g, text, x, y, width, tail = false) {
  let shown = text;
  while (shown.length > 2 && g.measureText(shown).width > width) {
    shown = tail
      ? `…${shown.replace(/^…/, "").slice(1)}`
      : `${shown.replace(/…$/, "").slice(0, -1)}…`;
  }
  g.fillText(shown, x, y);
}

function inWords(g, view, part, box, ink) {
  const size = Math.max(9.5, Math.min(13, view.scale / 8.4));
  g.fillStyle = ink;
  g.font = `600 ${size}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
  g.textBaseline = "alphabetic";
  const line = size + 5;
  const [left, width] = [box.x + 6, box.w - 12];
  words(g, part.prefix, left, box.y + 8 + size, width, true);
  g.font = `${size}px system-ui, sans-serif`;
  words(g, view.nodes[part.owner].node, left, box.y + 8 + size + line, width);
  if (view.scale < FIGURES_FROM) return;
  const held = part.state === "active"
    ? `${count(part.used)} of ${count(part.usable)} held` : part.state;
  words(g, held, left, box.y + 8 + size + 2 * line, width);
  const rows = view.addresses.get(part.prefix)?.rows;
  if (view.scale >= ADDRESSES_FROM && rows && part.addresses <= 4096) {
    const top = box.y + 14 + size + 3 * line - 8;
    const h = box.y + box.h - 6 - top;
    drawAddresses(g, view, part, rows, { x: left, y: top, w: width, h }, ink);
  }
}

/** Each address of a block: held, or not. */
function drawAddresses(g, view, part, rows, box, ink) {
  const all = part.addresses;
  // A power of two columns, so that the bits of the addresses show; the one with the most room.
  let [columns, size] = [1, 0];
  for (let many = 1; many <= all; many *= 2) {
    const fits = Math.min(box.w / many, box.h / Math.ceil(all / many));
    if (fits > size) [columns, size] = [many, fits];
  }
  if (size < 2) return;
  const held = new Set(rows.map((row) => row.address));
  g.fillStyle = ink;
  const before = g.globalAlpha;
  for (let at = 0; at < all; at++) {
    const is = held.has(address(part.first + BigInt(at), view.set.family));
    g.globalAlpha = before * (is ? 1 : 0.2);
    const [column, row] = [at % columns, Math.floor(at / columns)];
    g.fillRect(box.x + column * size, box.y + row * size, size - 1.2, size - 1.2);
  }
  g.globalAlpha = before;
}

/** A frame around the chosen block. */
function mark(g, view, { cell, part }) {
  const one = view.cells[cell]?.parts[part] ?? { from: 0, width: 1 };
  const [column, row] = [cell % view.columns, Math.floor(cell / view.columns)];
  const [w, h] = [Math.max(4, one.width * view.scale), Math.max(4, view.scale)];
  g.strokeStyle = colours.select;
  g.lineWidth = 2.5;
  g.strokeRect(view.x + (column + one.from) * view.scale, view.y + row * view.scale, w, h);
}
