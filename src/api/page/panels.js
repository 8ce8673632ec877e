// The lists around the map: range sets, figures, nodes, events, legend.

import { readColours } from "./draw.js";
import { ago, bar, clock, count, element, percent, plural } from "./words.js";

const NODES_AT_FIRST = 50;
const EVENTS_SHOWN = 120;
const byId = (id) => document.getElementById(id);
let allNodes = false;

export const nameOf = (set) => `${set.network},${set.family},${set.ranges[0]?.[0] ?? ""}`;

/** A short text for the ranges of a set. */
export function rangesOf(set) {
  const all = set.ranges.map(([first, last]) => (first === last ? first : `${first} – ${last}`));
  const first = all.slice(0, 3).join(", ");
  return all.length > 3 ? `${first} and ${all.length - 3} more` : first;
}

/** The addresses of a set in blocks that somebody has, or had and nobody gets yet. */
export function inBlocks(set) {
  return set.blocks.reduce((sum, block) => sum + (block[2] === "parked" ? 0 : block[4]), 0);
}

/** Puts children into a list, unless it shows the same already: so the focus stays. */
function fill(list, key, children) {
  if (list.dataset.key === key) return;
  const { activeElement } = document;
  const focused = list.contains(activeElement) ? activeElement.dataset.name : null;
  list.dataset.key = key;
  list.replaceChildren(...children());
  if (focused) [...list.querySelectorAll("[data-name]")]
    .find((one) => one.dataset.name === focused)?.focus();
}

export function showSets(sets, current, choose) {
  const row = (set) => [nameOf(set), set.used, set.size, nameOf(set) === current];
  const key = JSON.stringify(sets.map(row));
  fill(document.querySelector("#sets ul"), key, () => sets.map((set) => {
    const name = nameOf(set);
    return element("li", {}, element("button", {
      type: "button", "data-name": name, "aria-current": name === current ? "true" : null,
      onclick: () => choose(name),
    }, element("b", {}, set.network),
    element("span", { class: "number" }, percent(set.used, set.size)),
    bar((set.used ?? 0) / Math.max(1, set.size)),
    element("small", {}, `${set.family === "ipv4" ? "IPv4" : "IPv6"} · ${rangesOf(set)}`)));
  }));
}

export function showFigures(set) {
  byId("title").textContent = set ? set.network : "No network yet";
  byId("ranges").textContent = set ? rangesOf(set) : "";
  if (!set) return byId("figures").replaceChildren();
  const blocks = (state) => set.blocks.filter((block) => block[2] === state).length;
  const [active, spare] = [blocks("active"), blocks("spare")];
  const other = set.blocks.length - active - spare;
  const owners = new Set(set.blocks.map((block) => block[1])).size;
  const figure = (name, value, more) => [element("div", {}, element("dt", {}, name),
    element("dd", { "data-figure": name }, value, more ? element("small", {}, ` ${more}`) : null))];
  byId("figures").replaceChildren(
    ...figure("Held", count(set.used), `of ${count(set.size)}, ${percent(set.used, set.size)}`),
    ...figure("Blocks", count(set.blocks.length),
      `${count(active)} active, ${count(spare)} spare` +
      (other ? `, ${count(other)} kept back` : "")),
    ...figure("In blocks", count(inBlocks(set)), percent(inBlocks(set), set.size)),
    ...figure("Nodes", count(owners)));
}

/** The nodes of a range set: their session, blocks and fill, the fullest first. */
export function showNodes(map, set, chosen, choose) {
  const rows = map.nodes.map((node) => ({ ...node, blocks: 0, held: 0, usable: 0 }));
  for (const [, owner, state, used, usable] of set?.blocks ?? []) {
    if (state !== "active" && state !== "spare") continue;
    rows[owner].blocks += 1;
    rows[owner].held += used ?? 0;
    rows[owner].usable += usable;
  }
  rows.sort((a, b) => b.held - a.held || b.blocks - a.blocks || (a.node < b.node ? -1 : 1));
  const live = rows.filter((row) => row.live);
  const mean = rows.reduce((sum, row) => sum + row.held, 0) / Math.max(1, rows.length);
  const most = Math.max(1, ...rows.map((row) => row.held));
  byId("nodes-text").textContent = rows.length === 0 ? "No node has a session or a block." :
    `${plural(live.length, "node has", "nodes have")} a session` +
    (live.length < rows.length ? `, ${rows.length - live.length} with blocks do not` : "") +
    `. In this range set: the fullest node holds ${count(rows[0].held)}, the mean is ` +
    `${count(Math.round(mean))}, the emptiest holds ${count(rows.at(-1).held)}.`;
  const shown = allNodes ? rows : rows.slice(0, NODES_AT_FIRST);
  const body = document.querySelector("#nodes tbody");
  const row = (of) => nodeRow(of, of.node === map.node, chosen === of.node, mean, most, choose);
  fill(body, JSON.stringify([shown, chosen, map.node, most, mean]), () => shown.map(row));
  const more = byId("more-nodes");
  more.hidden = allNodes || rows.length <= NODES_AT_FIRST;
  more.textContent = `Show all ${count(rows.length)} nodes`;
  more.onclick = () => {
    allNodes = true;
    showNodes(map, set, chosen, choose);
  };
}

function nodeRow(row, answers, isChosen, mean, most, choose) {
  const [tone, state] = nodeState(row);
  const button = element("button", {
    type: "button", "data-name": row.node, "aria-pressed": String(isChosen),
    title: "Show only the blocks of this node", onclick: () => choose(row.node),
  }, row.node);
  const times = (row.held / Math.max(mean, 1e-9)).toFixed(1);
  return element("tr", {},
    element("td", {}, button,
      answers ? element("span", { class: "hint" }, " answers here") : null),
    element("td", {}, element("span", { class: `chip ${tone}` }, state)),
    element("td", { class: "number" }, count(row.blocks)),
    element("td", { class: "number" }, count(row.held)),
    element("td", { title: `${times} times the mean` }, bar(row.held / most, mean / most)));
}

export function nodeState(node) {
  if (!node.live) return ["bad", "no session"];
  return node.draining ? ["warn", "draining"] : ["good", "live"];
}

const GRAVE = new Set(["exhausted", "blockLost", "journalFailed", "halted", "storeRestored"]);
const CAREFUL = new Set(["nodeLeft", "nodeDrained", "storeAway", "refused", "blockQuarantined",
  "stateRecovered"]);

export function showEvents(events) {
  const rows = [...events].sort((a, b) => b.lastUnixMs - a.lastUnixMs || b.number - a.number)
    .slice(0, EVENTS_SHOWN);
  const list = document.querySelector("#events ol");
  const key = rows.map((row) => `${row.number}.${row.changed}`).join();
  const none = () => [element("li", { class: "hint" }, "",
    "Nothing has happened since the daemon started.")];
  fill(list, `k${key}`, () => (rows.length === 0 ? none() : rows.map(eventRow)));
}

function eventRow(row) {
  const tone = GRAVE.has(row.kind) ? "bad" : CAREFUL.has(row.kind) ? "warn" : null;
  const again = element("span", { class: "hint" }, ` (${count(row.count)} times)`);
  return element("li", { "data-kind": row.kind },
    element("time", { datetime: new Date(row.lastUnixMs).toISOString(),
      title: ago(row.lastUnixMs) }, clock(row.lastUnixMs)),
    element("span", { class: tone }, row.text, row.count > 1 ? again : null));
}

function swatch(fillColour, stroke = null, wide = null) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", wide ? "0 0 56 14" : "0 0 14 14");
  if (wide) svg.setAttribute("class", "wide");
  (wide ?? [fillColour]).forEach((colour, at, all) => {
    const rect = document.createElementNS(space, "rect");
    const width = (wide ? 56 : 14) / all.length;
    for (const [name, value] of Object.entries({ x: at * width, width: width + 0.3, height: 14,
      fill: colour, stroke: stroke ?? "none", "stroke-width": 3 })) rect.setAttribute(name, value);
    svg.append(rect);
  });
  return svg;
}

export function showLegend(mode) {
  const colours = readColours();
  const entry = (picture, text) => element("li", {}, picture, text);
  const steps = [0, 4, 8, 12, 16, 20, 24].map((step) => colours.fill[step]);
  const owners = [0, 1, 2, 3, 4].map(colours.owner);
  byId("legend").replaceChildren(
    mode === "fill" ? entry(swatch(null, null, steps), "empty to full")
      : entry(swatch(null, null, owners), "by owner"),
    entry(swatch(colours.card, colours.spare), "spare"),
    entry(swatch(colours.quarantined), "quarantined"),
    entry(swatch(colours.parked), "parked"),
    entry(swatch(colours.gone), "owner gone"), entry(swatch(colours.free), "nobody's"));
}
