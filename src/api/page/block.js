// Shows the chosen block: its owner, its fill, and its containers, if the daemon shows these to
// this client.

import { allocations, known, useToken } from "./data.js";
import { nodeState } from "./panels.js";
import { ago, count, element, percent } from "./words.js";

const ROWS_SHOWN = 512;
const body = document.getElementById("block-body");
let shown = null;
let asked = null;

/** Shows a block; null: none is chosen. `mark`: the address to point out. */
export async function showBlock(set, part, nodes, mark = null, found = () => {}, again = false) {
  const key = part && `${set.network} ${part.prefix}`;
  const same = key !== null && key === shown?.key;
  const rows = same ? shown.rows : undefined;
  const before = same && mark === null ? shown : { mark, pointed: false };
  shown = part ? { key, rows, mark: before.mark, pointed: before.pointed } : null;
  if (!part) {
    asked?.abort();
    return body.replaceChildren(element("p", { class: "hint" },
      "Choose a block in the map to see its owner and its containers."));
  }
  asked?.abort();
  // Nobody's typing is disturbed.
  if (same && !again && document.activeElement.id === "token") return;
  paint(set, part, nodes, found);
  asked = new AbortController();
  try {
    const filter = { pool: set.network, block: part.prefix };
    const fresh = await allocations(filter, asked.signal);
    if (shown?.key !== key) return;
    shown.rows = fresh;
    shown.failed = null;
  } catch (error) {
    if (error.name === "AbortError" || shown?.key !== key) return;
    shown.failed = error.message;
  }
  found(part.prefix, shown.rows);
  paint(set, part, nodes, found);
}

function paint(set, part, nodes, found) {
  const node = nodes[part.owner];
  const [tone, state] = nodeState(node);
  const scrolled = body.querySelector(".held")?.scrollTop ?? 0;
  const pair = (name, ...value) => [element("dt", {}, name), element("dd", {}, ...value)];
  body.replaceChildren(element("dl", { class: "pairs" },
    ...pair("Prefix", element("span", { class: "mono", id: "block-prefix" }, part.prefix)),
    ...pair("Network", set.network),
    ...pair("Owner", element("span", { id: "block-owner" }, node.node), " ",
      element("span", { class: `chip ${tone}` }, state)),
    ...pair("State", MEANING[part.state] ?? part.state),
    ...pair("Held", `${count(part.used)} of ${count(part.usable)}, ` +
      percent(part.used, part.usable)),
    ...(part.cooling === null ? [] : pair("Cooling", count(part.cooling)))),
  ...names(set, part, nodes, found));
  const list = body.querySelector(".held");
  if (list) list.scrollTop = scrolled;
  if (list && shown.mark && !shown.pointed) {
    const chosen = list.querySelector(".chosen");
    if (chosen) list.scrollTop = chosen.offsetTop - list.offsetTop - 40;
    shown.pointed = true;
  }
}

const MEANING = {
  active: "active: addresses are handed out of it",
  spare: "spare: leased ahead of need, nothing is handed out of it yet",
  quarantined: "quarantined: its node was removed, and nobody gets it for a while",
  parked: "parked: its node gave it back when it stopped; free when its addresses have cooled",
};

function names(set, part, nodes, found) {
  const note = (text) => [element("p", { class: "note hint" }, text)];
  if (shown.failed) return note(`The containers cannot be listed: ${shown.failed}.`);
  if (shown.rows === undefined) return note("Looking for its containers.");
  if (shown.rows === null) return [permit(set, part, nodes, found)];
  if (shown.rows.length === 0) return note("No container holds an address of it.");
  const rows = shown.rows.slice(0, ROWS_SHOWN);
  const attributes = { class: "held", tabindex: "0", "aria-label": "Addresses of the block" };
  const list = element("ol", attributes, ...rows.map(holder));
  const rest = shown.rows.length - rows.length;
  return rest > 0
    ? [list, element("p", { class: "hint" }, `${count(rest)} more: leasehold allocations`)]
    : [list];
}

/** An address and its container. */
function holder(row) {
  const pod = row.namespace ? `${row.namespace}/${row.pod}` : row.pod;
  return element("li", { class: row.address === shown.mark ? "chosen" : null },
    element("span", { class: "mono" }, row.address),
    element("small", { title: new Date(row.sinceUnixMs).toISOString() }, ago(row.sinceUnixMs)),
    row.pod ? element("span", { class: "wide" }, pod) : null,
    element("small", { class: "wide mono" }, `${row.containerId} ${row.ifname}`));
}

/** Why names are not shown, and how to permit them. */
function permit(set, part, nodes, found) {
  const text = (...children) => element("p", {}, ...children);
  const code = (words) => element("code", {}, words);
  const box = element("div", { class: "note", id: "permit" },
    text(element("strong", {}, "Containers and pods are not shown to everybody.")),
    text("To show them to everybody who reaches this page, set ", code("listenDetails = true"),
      " in the daemon's configuration. To show them to the holder of a token, set ",
      code("listenTokenFile"), ". On the node, ", code("leasehold allocations"), " lists them."));
  if (known.names !== "token") return box;
  const input = element("input", { type: "password", autocomplete: "off", id: "token",
    "aria-label": "Token", placeholder: "Token" });
  const use = async () => {
    await useToken(input.value);
    showBlock(set, part, nodes, null, found, true);
  };
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") use(); });
  box.append(element("div", { class: "token" }, input,
    element("button", { type: "button", onclick: use }, "Use token")),
  known.wrongToken ? element("p", { role: "alert" }, `Refused: ${known.wrongToken}.`) : "");
  return box;
}
