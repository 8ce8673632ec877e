// Asks the daemon: for the map, the events and the trend again and again while the page is in view,
// and for lists of pods only when the user opens them.

const listeners = new Map();
let token = null;

/** Everything that is known, and how the last question went. */
export const known = {
  map: null, events: [], trend: null,
  /** Why the daemon did not answer, and since when. */
  silent: null, silentSince: null, answered: null,
  /** Whether names of pods are shown: `shown`, `token` (to its holder), `hidden`. */
  names: "hidden",
  /** What was said to a token that is not the right one. */
  wrongToken: null,
};

/** Calls a listener after each change of a kind: `map`, `events`, `trend`, `silence`. */
export function when(kind, listener) {
  listeners.set(kind, [...(listeners.get(kind) ?? []), listener]);
}

export function tell(kind) {
  for (const listener of listeners.get(kind) ?? []) listener();
}

async function get(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const limit = AbortSignal.timeout(20_000);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  const answer = await fetch(path, { headers, cache: "no-store", ...options, signal });
  known.names = answer.headers.get("Leasehold-Names") ?? known.names;
  const text = await answer.text();
  let body;
  try { body = JSON.parse(text); } catch { body = { error: text.slice(0, 200) }; }
  if (!answer.ok) {
    const error = new Error(body.error ?? `status ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return body;
}

function heard() {
  known.answered = Date.now();
  if (known.silent === null) return;
  known.silent = known.silentSince = null;
  tell("silence");
}

function unheard(error) {
  // A refusal is an answer.
  known.silent = error.status ? error.message : "The daemon does not answer";
  known.silentSince ??= Date.now();
  tell("silence");
}

async function askForMap() {
  known.map = await get("/v1/map");
  heard();
  tell("map");
  return Math.max(1000, known.map.nextMs);
}

async function askForEvents() {
  const last = known.events.at(-1);
  const answer = await get(`/v1/events?changedSince=${last ? last.changed : 0}`);
  // A daemon that was started again counts anew.
  const fresh = answer.since !== known.eventsSince;
  if (fresh && known.eventsSince !== undefined) {
    known.eventsSince = answer.since;
    known.events = [];
    return 0;
  }
  known.eventsSince = answer.since;
  const changed = new Set(answer.events.map((event) => event.number));
  known.events = known.events.filter((event) => !changed.has(event.number))
    .concat(answer.events).slice(-400);
  if (answer.events.length > 0 || fresh) tell("events");
  return 2000;
}

async function askForTrend() {
  known.trend = await get("/v1/trend");
  tell("trend");
  return known.trend.everyMs;
}

/** Asks now and then, as the answers say, while the page is in view. */
async function repeat(ask) {
  for (;;) {
    let wait = 2000;
    try {
      wait = await ask();
    } catch (error) {
      unheard(error);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (document.hidden) {
      await new Promise((resolve) =>
        document.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
}

export function begin() {
  repeat(askForMap);
  repeat(askForEvents);
  repeat(askForTrend);
}

/** Allocations that fit a filter, or null: they are not for everybody. */
export async function allocations(filter, signal) {
  if (known.names !== "shown") return null;
  return get(`/v1/records?${new URLSearchParams(filter)}`, { signal });
}

/** Asks with this token until the page is closed, if it is the right one. */
export async function useToken(text) {
  token = text.trim() || null;
  try {
    await get("/v1/records?limit=1");
    known.names = "shown";
    known.wrongToken = null;
  } catch (error) {
    token = null;
    known.wrongToken = error.message;
  }
}
