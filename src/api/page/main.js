// The page: what is shown, and what happens when somebody does something.

import { showBlock } from "./block.js";
import { drawChart } from "./chart.js";
import { allocations, begin, known, when } from "./data.js";
import { ADDRESSES_FROM, readColours } from "./draw.js";
import * as map from "./map.js";
import {
  inBlocks, nameOf, showEvents, showFigures, showLegend, showNodes, showSets,
} from "./panels.js";
import * as search from "./search.js";
import { ago, clock, count, element, number } from "./words.js";

const byId = (id) => document.getElementById(id);
const page = { set: null, node: null, mark: null, mode: "fill" };

const current = () => known.map?.sets.find((set) => nameOf(set) === page.set) ?? null;

// The map.

function showMap(fresh = false) {
  const { sets, nodes } = known.map;
  if (!current()) {
    page.set = sets.length ? nameOf(sets[0]) : null;
    fresh = true;
  }
  const set = current();
  showSets(sets, page.set, openSet);
  showFigures(set);
  map.show(set, nodes, fresh);
  showNodes(known.map, set, page.node, openNode);
  const chosen = map.part(map.state().chosen);
  showBlock(set, chosen, nodes, null, map.setAddresses);
  byId("nothing").hidden = sets.length > 0;
  showCurve();
}

function openSet(name) {
  if (page.set === name) return;
  Object.assign(page, { set: name, mark: null });
  showMap(true);
}

function openNode(name) {
  page.node = page.node === name ? null : name;
  map.setNode(page.node);
  showNodes(known.map, current(), page.node, openNode);
}

/** Goes to the block of an address. */
function openAddress(set, address) {
  if (!set) return;
  page.set = nameOf(set);
  showMap(true);
  const block = map.blockAt(number(address));
  page.mark = address;
  const place = block && map.find(block.prefix);
  map.choose(place, { reveal: true });
  if (!block) say(`${address} is in nobody's block`);
}

function onChoose(part, cell) {
  showBlock(current(), part, known.map.nodes, page.mark, map.setAddresses);
  page.mark = null;
  if (part) {
    const node = known.map.nodes[part.owner].node;
    const held = `${count(part.used)} of ${count(part.usable)} held`;
    say(`${part.prefix}, ${part.state}, of ${node}, ${held}`);
  } else if (cell) {
    say(cell.gap === null
      ? "A block that nobody has" : `${count(Number(cell.gap))} blocks that nobody has`);
  }
}

const say = (text) => { byId("said").textContent = text; };

function onHover(part, cell, event) {
  const tip = byId("tip");
  tip.hidden = !cell;
  if (!cell) return;
  const node = part && known.map.nodes[part.owner];
  tip.textContent = part
    ? `${part.prefix} · ${node.node}${node.live ? "" : " (no session)"} · ` +
      (part.state === "active" ? `${count(part.used)} of ${count(part.usable)} held` : part.state)
    : cell.gap === null ? "nobody's" : `${count(Number(cell.gap))} blocks, nobody's`;
  const box = byId("frame").getBoundingClientRect();
  const x = Math.min(event.offsetX + 14, box.width - tip.offsetWidth - 8);
  const below = event.offsetY + 22 + tip.offsetHeight <= box.height;
  const y = event.offsetY + (below ? 18 : -tip.offsetHeight - 10);
  Object.assign(tip.style, { left: `${Math.max(6, x)}px`, top: `${y}px` });
}

// Zoomed in far enough, the map shows single addresses, of the few blocks that are in view.

const ADDRESSES_AGE_MS = 5000;
let looking = null;
let lookTimer = null;

function onView() {
  clearTimeout(lookTimer);
  lookTimer = setTimeout(lookAtAddresses, 150);
}

/** The active blocks in view. */
function inView() {
  const { scale, columns, x, y, width, height, cells } = map.state();
  const from = (at) => Math.max(0, Math.floor(-at / scale));
  const found = [];
  for (let row = from(y); row * scale + y < height; row++) {
    for (let column = from(x); column < columns && column * scale + x < width; column++) {
      found.push(...cells[row * columns + column]?.parts ?? []);
    }
  }
  return found.filter((part) => part.state === "active");
}

async function lookAtAddresses() {
  const { scale, addresses } = map.state();
  if (scale < ADDRESSES_FROM || known.names !== "shown") return;
  looking?.abort();
  looking = new AbortController();
  const set = current();
  for (const part of inView()) {
    const at = addresses.get(part.prefix)?.at ?? 0;
    if (Date.now() - at < ADDRESSES_AGE_MS) continue;
    try {
      const filter = { pool: set.network, block: part.prefix };
      const rows = await allocations(filter, looking.signal);
      if (rows === null) return;
      map.setAddresses(part.prefix, rows);
    } catch { return; }
  }
}

// The curve: the daemon's points, and one for each answer since.

const since = new Map();

function showCurve() {
  const set = current();
  if (!set) return drawChart([], false);
  const same = (of) => of.network === set.network && of.family === set.family;
  const points = (known.trend?.pools.find(same)?.points ?? []).slice();
  const key = `${set.network} ${set.family}`;
  const own = since.get(key) ?? [];
  const last = points.at(-1)?.[0] ?? 0;
  drawChart(points.concat(own.filter((point) => point[0] > last)), known.map.shared);
}

function notePoints() {
  const sums = new Map();
  for (const set of known.map.sets) {
    const key = `${set.network} ${set.family}`;
    const sum = sums.get(key) ?? [known.map.atUnixMs, 0, null, null];
    sum[1] += inBlocks(set);
    if (set.used !== null) sum[2] = sum[3] = (sum[3] ?? 0) + set.used;
    sums.set(key, sum);
  }
  for (const [key, sum] of sums) {
    const points = since.get(key) ?? [];
    if (points.at(-1)?.[0] !== sum[0]) points.push(sum);
    since.set(key, points.slice(-1800));
  }
}

// The state of the daemon.

function showState() {
  const chip = byId("state");
  const trouble = byId("trouble");
  const say = (tone, words, text = null) => {
    chip.className = `chip ${tone}`;
    chip.textContent = words;
    trouble.hidden = text === null;
    trouble.className = tone;
    trouble.textContent = text ?? "";
  };
  if (known.silent !== null) {
    const at = known.answered;
    const last = at ? `This is what it said at ${clock(at)}, ${ago(at)}. ` : "";
    say("bad", "no answer", `${known.silent}. ${last}` +
      "On the node: systemctl status leasehold, leasehold status.");
    if (!known.map) showNothing("No answer from the daemon", known.silent);
    return;
  }
  if (!known.map) return;
  const { shared, cause, countedUnixMs } = known.map;
  if (cause && shared) {
    const counted = countedUnixMs
      ? `; what other nodes hold was counted at ${clock(countedUnixMs)}` : "";
    say("warn", "etcd away", `${cause}${counted}. Every node goes on from the blocks it has. ` +
      "See leasehold status.");
  } else if (cause) {
    say("bad", "trouble", `${cause}. See leasehold status.`);
  } else {
    say("good", shared ? "live" : "live, alone");
  }
  chip.title = shared ? "Shares its pools through etcd"
    : "No etcd is configured: this node shares no pool with others";
}

function showNothing(title, text) {
  const box = byId("nothing");
  box.hidden = false;
  box.replaceChildren(element("strong", {}, title), text);
}

// The colours.

const SCHEMES = ["system", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
let scheme = SCHEMES.includes(kept()) ? kept() : "system";

function showScheme() {
  const is = scheme === "system" ? (dark.matches ? "dark" : "light") : scheme;
  document.documentElement.dataset.theme = is;
  byId("theme").textContent = `Theme: ${scheme}`;
  readColours();
  showLegend(page.mode);
  map.redraw();
  if (known.map) showCurve();
}

function setMode(mode) {
  page.mode = mode;
  for (const name of ["fill", "owner"]) {
    byId(`by-${name}`).setAttribute("aria-pressed", String(name === mode));
  }
  map.setMode(mode);
  showLegend(mode);
}

byId("theme").addEventListener("click", () => {
  scheme = SCHEMES[(SCHEMES.indexOf(scheme) + 1) % SCHEMES.length];
  try { localStorage.setItem("theme", scheme); } catch { /* It is forgotten with the page. */ }
  showScheme();
});
dark.addEventListener("change", showScheme);
byId("by-fill").addEventListener("click", () => setMode("fill"));
byId("by-owner").addEventListener("click", () => setMode("owner"));
byId("zoom-in").addEventListener("click", () => map.zoomAtChoice(1.6));
byId("zoom-out").addEventListener("click", () => map.zoomAtChoice(1 / 1.6));
byId("zoom-fit").addEventListener("click", map.fit);
addEventListener("resize", () => known.map && showCurve());

map.listen({ choose: onChoose, hover: onHover, looked: onView });
search.listen({ set: openSet, node: openNode, address: openAddress });

when("map", () => {
  byId("node").textContent = known.map.node;
  document.title = `${known.map.node}: address map`;
  notePoints();
  if (known.map.sets.length === 0) {
    showNothing("No network has been used yet",
      "The first ADD of a network makes it appear here. A network that is kept centrally appears " +
      "as soon as it is stored: leasehold network put.");
  }
  showMap();
  onView();
  showState();
});
when("events", () => showEvents(known.events));
when("trend", () => known.map && showCurve());
when("silence", showState);
setInterval(() => known.silent !== null && showState(), 1000);

showScheme();
showEvents([]);
begin();
