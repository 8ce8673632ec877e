// The places of a range set's blocks in the picture. A cell is the place of one block of the usual
// size; smaller blocks, which are what is left of one that nodes have shared, lie in it side by
// side. A small range set has a cell for each block that there could be. A large one has cells only
// for blocks that somebody has, and one cell for each gap between them.

import { number, span } from "./words.js";

/** The most cells that are drawn for blocks that nobody has. */
const FREE_CELLS_MAX = 4096n;

const spans = new Map();

function spanOf(prefix, family) {
  let known = spans.get(prefix);
  if (!known) {
    if (spans.size > 100_000) spans.clear();
    known = span(prefix, family);
    spans.set(prefix, known);
  }
  return known;
}

/**
 * The cells of a range set, in the order of addresses. A cell has its first address (`first`), and
 * `parts` (blocks, each with its place `from` and `width` within the cell, from 0 to 1) or `gap`,
 * the number of blocks that would fit there.
 */
export function layOut(set) {
  const size = BigInt(set.blockSize);
  const slots = new Map();
  for (const row of set.blocks) {
    const [prefix, owner, state, used, usable, cooling] = row;
    const { first, size: addresses } = spanOf(prefix, set.family);
    const slot = first / size;
    const from = Number(first - slot * size) / set.blockSize;
    const width = Math.min(1 - from, addresses / set.blockSize);
    const part = { prefix, first, addresses, owner, state, used, usable, cooling, from, width };
    const there = slots.get(slot);
    if (there) there.push(part);
    else slots.set(slot, [part]);
  }
  const runs = set.ranges.map(([first, last]) => [number(first) / size, number(last) / size]);
  const all = runs.reduce((sum, [first, last]) => sum + last - first + 1n, 0n);
  return all <= FREE_CELLS_MAX ? everySlot(runs, slots, size) : takenSlots(runs, slots, size);
}

function everySlot(runs, slots, size) {
  const cells = [];
  let done = -1n;
  for (const [first, last] of runs) {
    for (let slot = first > done ? first : done + 1n; slot <= last; slot++) {
      cells.push({ first: slot * size, parts: slots.get(slot) ?? [], gap: null });
    }
    if (last > done) done = last;
  }
  return cells;
}

function takenSlots(runs, slots, size) {
  const taken = [...slots.keys()].sort((a, b) => (a < b ? -1 : 1));
  const cells = [];
  let next = 0;
  for (const [first, last] of runs) {
    let from = first;
    for (; next < taken.length && taken[next] <= last; next++) {
      const slot = taken[next];
      if (slot > from) cells.push({ first: from * size, parts: [], gap: slot - from });
      cells.push({ first: slot * size, parts: slots.get(slot), gap: null });
      from = slot + 1n;
    }
    if (from <= last) cells.push({ first: from * size, parts: [], gap: last - from + 1n });
  }
  return cells;
}
