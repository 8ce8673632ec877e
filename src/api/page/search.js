// The search: networks and nodes among what the page has, addresses, containers and pods in the
// daemon's records.

import { allocations, known } from "./data.js";
import { nameOf } from "./panels.js";
import { element, number } from "./words.js";

const PAUSE_MS = 200;
const ROWS = 50;
const input = document.getElementById("query");
const box = document.getElementById("found");
let timer = null;
let asked = null;

/** `open.set(name)`, `open.node(name)` and `open.address(set, address)` show what was found. */
export function listen(open) {
  input.addEventListener("input", () => {
    clearTimeout(timer);
    // Results for another text go, so that nobody chooses one by mistake.
    close();
    box.replaceChildren();
    timer = setTimeout(() => search(open), PAUSE_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "ArrowDown") move(event, 0);
    if (event.key === "Enter") box.querySelector("button")?.click();
  });
  box.addEventListener("keydown", (event) => {
    const all = [...box.querySelectorAll("button")];
    const at = all.indexOf(document.activeElement);
    if (event.key === "ArrowDown") move(event, at + 1);
    if (event.key === "ArrowUp") at > 0 ? move(event, at - 1) : input.focus();
    if (event.key === "Escape") { close(); input.focus(); }
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".search")) box.hidden = true;
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
}

function move(event, at) {
  const all = box.querySelectorAll("button");
  if (!all[at]) return;
  event.preventDefault();
  all[at].focus();
}

function close() {
  asked?.abort();
  box.hidden = true;
}

/** The range set in which an address is. */
function setOf(sets, pool, address) {
  const at = number(address);
  if (at === null) return null;
  return sets.find((set) => (pool === null || set.network === pool) &&
    (set.family === "ipv6") === address.includes(":") &&
    set.ranges.some(([first, last]) => number(first) <= at && at <= number(last))) ?? null;
}

async function search(open) {
  const text = input.value.trim();
  asked?.abort();
  if (text === "" || !known.map) {
    box.hidden = true;
    return;
  }
  asked = new AbortController();
  const own = nearby(text, open);
  show(own, element("p", { class: "hint" }, "Searching for addresses, containers and pods."));
  try {
    const rows = await find(text, asked.signal);
    show(own, ...answers(text, rows, own.length > 0, open));
  } catch (error) {
    if (error.name === "AbortError") return;
    show(own, element("p", {}, `The search failed: ${error.message}.`));
  }
}

function show(...children) {
  box.replaceChildren(...children.flat());
  box.hidden = false;
}

/** An address is looked up in each pool that may have it; any other text is searched for. */
async function find(text, signal) {
  if (number(text) === null) return allocations({ search: text, limit: ROWS }, signal);
  const sets = known.map.sets.filter((set) => setOf([set], null, text));
  const pools = [...new Set(sets.map((set) => set.network))];
  const ask = (pool) => allocations({ pool, address: text }, signal);
  const all = await Promise.all(pools.map(ask));
  return all.includes(null) ? null : all.flat();
}

/** What the page has itself. */
function nearby(text, open) {
  const lower = text.toLowerCase();
  const hit = (name) => name.toLowerCase().includes(lower);
  const row = (title, more, act) => line({}, act, title, element("small", {}, more));
  const sets = known.map.sets.filter((set) => hit(set.network)).slice(0, 8);
  const nodes = known.map.nodes.filter((node) => hit(node.node)).slice(0, 8);
  return [
    ...(sets.length ? [element("h3", {}, "Networks"), ...sets.map((set) =>
      row(set.network, set.family, () => open.set(nameOf(set))))] : []),
    ...(nodes.length ? [element("h3", {}, "Nodes"), ...nodes.map((node) =>
      row(node.node, node.live ? "live" : "no session", () => open.node(node.node)))] : []),
  ];
}

/** A line of the results. */
function line(attributes, act, ...children) {
  const onclick = () => { box.hidden = true; act(); };
  return element("button", { type: "button", onclick, ...attributes }, ...children);
}

function answers(text, rows, more, open) {
  if (rows === null) return refusal(text, open);
  if (rows.length === 0) {
    if (number(text) !== null) return free(text, open);
    return more ? [] : [element("p", {},
      `No address, container, pod, node or network has “${text}” in it.`)];
  }
  const title = rows.length === ROWS ? `The first ${ROWS} addresses` : "Addresses";
  return [element("h3", {}, title), ...rows.map((row) => {
    const pod = row.namespace ? `${row.namespace}/${row.pod}` : row.pod;
    const about = [row.pod ? pod : null, row.containerId.slice(0, 24), row.node];
    const act = () => open.address(setOf(known.map.sets, row.pool, row.address), row.address);
    return line({ "data-address": row.address }, act,
      element("span", { class: "mono" }, row.address),
      element("small", {}, about.filter((part) => part).join(" · ")));
  })];
}

/** An address that nobody holds. */
function free(text, open) {
  const set = setOf(known.map.sets, null, text);
  if (!set) return [element("p", {}, `${text} is in no range set.`)];
  return [element("p", {}, `No container holds ${text}.`),
    line({}, () => open.address(set, text), `Show its place in ${set.network}`)];
}

function refusal(text, open) {
  const set = number(text) === null ? null : setOf(known.map.sets, null, text);
  const why = element("p", { class: "hint" }, "Containers and pods are not shown to everybody: " +
    "choose a block to give the token, or set listenDetails in the daemon's configuration.");
  return set ? [why, line({}, () => open.address(set, text), `Show the block of ${text}`)] : [why];
}
