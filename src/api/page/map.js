// The map of one range set: what is in view, what is chosen, and how both are moved.

import { draw } from "./draw.js";
import { layOut } from "./layout.js";

/** The sizes of a cell in pixels, between which one can zoom; and the largest at first sight. */
const CELL_MAX = 460;
const CELL_FIT_MAX = 72;
const MARGIN = 10;

const canvas = document.getElementById("map");
const view = {
  set: null, cells: [], columns: 1, scale: 10, x: 0, y: 0, fitted: true,
  /** The place of the chosen part: cell and part; the node that is shown alone; the colours. */
  chosen: null, node: null, mode: "fill", hover: null, nodes: [], addresses: new Map(),
  width: 0, height: 0,
};
let scheduled = false;
let onChoose = () => {};
let onHover = () => {};
let onView = () => {};

export function listen({ choose, hover, looked }) {
  onChoose = choose;
  onHover = hover;
  onView = looked;
}

/** Shows a range set. The view stays where it is if it is the one that is shown already. */
export function show(set, nodes, fresh) {
  const chosen = part(view.chosen)?.prefix;
  view.set = set;
  view.nodes = nodes;
  view.cells = set ? layOut(set) : [];
  if (fresh) view.fitted = true;
  view.chosen = fresh || !chosen ? null : find(chosen);
  view.hover = null;
  resize();
}

export const state = () => view;

export function part(place) {
  return place ? view.cells[place.cell]?.parts[place.part] ?? null : null;
}

/** The place of the block with this prefix. */
export function find(prefix) {
  for (let cell = 0; cell < view.cells.length; cell++) {
    const at = view.cells[cell].parts.findIndex((one) => one.prefix === prefix);
    if (at >= 0) return { cell, part: at };
  }
  return null;
}

/** The block in which an address (BigInt) is. */
export function blockAt(address) {
  for (const cell of view.cells) {
    const found = cell.parts.find((one) =>
      address >= one.first && address < one.first + BigInt(one.addresses));
    if (found) return found;
  }
  return null;
}

export function choose(place, { reveal = false, quiet = false } = {}) {
  view.chosen = place;
  if (reveal && place) bringIntoView(place.cell);
  if (!quiet) onChoose(part(place), place ? view.cells[place.cell] : null);
  redraw();
}

export function setMode(mode) {
  view.mode = mode;
  redraw();
}

export function setNode(node) {
  view.node = node;
  redraw();
}

/** Shows the addresses of a block; null: they are not known any longer. */
export function setAddresses(prefix, rows) {
  if (rows) view.addresses.set(prefix, { rows, at: Date.now() });
  else view.addresses.delete(prefix);
  if (view.addresses.size > 64) view.addresses.delete(view.addresses.keys().next().value);
  redraw();
}

export function redraw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw(canvas, view);
  });
}

function resize() {
  const box = canvas.getBoundingClientRect();
  view.width = box.width;
  view.height = box.height;
  if (view.fitted) fit();
  else clamp();
  redraw();
}

/** All cells, as large as fits. */
export function fit() {
  const [width, height] = [view.width - 2 * MARGIN, view.height - 2 * MARGIN];
  const cells = Math.max(1, view.cells.length);
  view.columns = Math.max(1, Math.ceil(Math.sqrt((cells * width) / Math.max(1, height))));
  // In a wide picture of few cells, rows of a power of two are easier to read.
  const even = 2 ** Math.round(Math.log2(view.columns));
  if (cells > even && cells <= 4096) view.columns = even;
  const rows = Math.ceil(cells / view.columns);
  const scale = Math.min(width / view.columns, height / rows);
  view.scale = Math.max(0.5, Math.min(CELL_FIT_MAX, scale));
  view.x = MARGIN + Math.max(0, (width - view.columns * view.scale) / 2);
  view.y = MARGIN + Math.max(0, (height - rows * view.scale) / 2);
  view.fitted = true;
  redraw();
  onView();
}

/** Keeps a part of the cells in view. */
function clamp() {
  const rows = Math.ceil(view.cells.length / view.columns);
  const keep = Math.min(80, view.width / 3);
  view.x = Math.min(view.width - keep, Math.max(keep - view.columns * view.scale, view.x));
  view.y = Math.min(view.height - keep, Math.max(keep - rows * view.scale, view.y));
}

function moveBy(dx, dy) {
  view.x += dx;
  view.y += dy;
  view.fitted = false;
  clamp();
  redraw();
  onView();
}

/** Zooms around a point of the picture. */
export function zoom(factor, x = view.width / 2, y = view.height / 2) {
  const smallest = Math.min(4, view.scale);
  const scale = Math.max(smallest, Math.min(CELL_MAX, view.scale * factor));
  const by = scale / view.scale;
  view.x = x - (x - view.x) * by;
  view.y = y - (y - view.y) * by;
  view.scale = scale;
  view.fitted = false;
  clamp();
  redraw();
  onView();
}

/** Zooms in or out at the chosen block, or in the middle. */
export function zoomAtChoice(factor) {
  if (!view.chosen) return zoom(factor);
  const { cell } = view.chosen;
  const [column, row] = [cell % view.columns, Math.floor(cell / view.columns)];
  bringIntoView(view.chosen.cell);
  zoom(factor, view.x + (column + 0.5) * view.scale, view.y + (row + 0.5) * view.scale);
  bringIntoView(view.chosen.cell);
}

function bringIntoView(cell) {
  const left = view.x + (cell % view.columns) * view.scale;
  const top = view.y + Math.floor(cell / view.columns) * view.scale;
  const over = (at, size) => {
    if (at < MARGIN) return MARGIN - at;
    return Math.min(0, Math.max(MARGIN - at, size - MARGIN - at - view.scale));
  };
  const [dx, dy] = [over(left, view.width), over(top, view.height)];
  if (dx !== 0 || dy !== 0) moveBy(dx, dy);
}

/** The place at a point of the picture. */
function placeAt(x, y) {
  const [column, row] = [(x - view.x) / view.scale, (y - view.y) / view.scale];
  if (column < 0 || row < 0 || column >= view.columns) return null;
  const cell = Math.floor(row) * view.columns + Math.floor(column);
  if (cell >= view.cells.length) return null;
  const within = column - Math.floor(column);
  const at = view.cells[cell].parts.findIndex((one) =>
    within >= one.from && within < one.from + one.width);
  return { cell, part: at < 0 ? 0 : at };
}

/** The next cell that somebody has, in a direction. */
function step(dx, dy) {
  const taken = (cell) => view.cells[cell]?.parts.length > 0;
  if (!view.chosen) {
    const first = view.cells.findIndex((cell) => cell.parts.length > 0);
    return choose(first < 0 ? null : { cell: first, part: 0 }, { reveal: true });
  }
  const { cell, part: at } = view.chosen;
  if (dx !== 0 && view.cells[cell].parts[at + dx]) {
    return choose({ cell, part: at + dx }, { reveal: true });
  }
  const by = dx + dy * view.columns;
  for (let next = cell + by; next >= 0 && next < view.cells.length; next += by) {
    if (taken(next)) {
      const part = dx < 0 ? view.cells[next].parts.length - 1 : 0;
      return choose({ cell: next, part }, { reveal: true });
    }
  }
}

const KEYS = {
  ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
  ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
  "+": () => zoomAtChoice(1.5), "=": () => zoomAtChoice(1.5), "-": () => zoomAtChoice(1 / 1.5),
  0: fit, Escape: () => choose(null),
};

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoom(Math.exp(-event.deltaY * lines * 0.0022), event.offsetX, event.offsetY);
}, { passive: false });

// One finger or the mouse moves, two fingers zoom, and what did not move chooses.
const fingers = new Map();
let moved = 0;

const spread = () => {
  const [a, b] = [...fingers.values()];
  return { d: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
};

canvas.addEventListener("pointerdown", (event) => {
  try { canvas.setPointerCapture(event.pointerId); } catch { /* It is gone already. */ }
  fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  moved = fingers.size > 1 ? 99 : 0;
});

canvas.addEventListener("pointermove", (event) => {
  const finger = fingers.get(event.pointerId);
  if (!finger) return hover(placeAt(event.offsetX, event.offsetY), event);
  const before = fingers.size === 2 ? spread() : null;
  const [dx, dy] = [event.offsetX - finger.x, event.offsetY - finger.y];
  Object.assign(finger, { x: event.offsetX, y: event.offsetY });
  moved += Math.abs(dx) + Math.abs(dy);
  if (before) {
    const now = spread();
    if (before.d > 0) zoom(now.d / before.d, now.x, now.y);
    moveBy(now.x - before.x, now.y - before.y);
  } else if (moved > 4) {
    moveBy(dx, dy);
  }
});

function lift(event) {
  if (fingers.delete(event.pointerId) && event.type === "pointerup" && moved <= 4) {
    choose(placeAt(event.offsetX, event.offsetY));
  }
}
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
canvas.addEventListener("pointerleave", (event) => hover(null, event));
canvas.addEventListener("focus", redraw);

function hover(place, event) {
  view.hover = place;
  onHover(part(place), place ? view.cells[place.cell] : null, event);
}

new ResizeObserver(resize).observe(canvas);
