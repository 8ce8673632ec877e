// The curve of a network: addresses in blocks, and those that containers hold.

import { readColours } from "./draw.js";
import { clock, count } from "./words.js";

const canvas = document.getElementById("chart");
const words = document.getElementById("trend-text");

/** Draws the points of a network, `[time, in blocks, held here, held by all]`, the oldest first. */
export function drawChart(points, shared) {
  const colours = readColours();
  const ratio = window.devicePixelRatio || 1;
  const box = canvas.getBoundingClientRect();
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, box.width, box.height);
  if (points.length === 0) {
    words.textContent = "No figures yet: they begin when the network is used.";
    return;
  }
  const held = (point) => (shared ? point[3] : point[2]);
  const last = points.at(-1);
  const most = Math.max(1, ...points.map((point) => Math.max(point[1] ?? 0, held(point) ?? 0)));
  const area = { left: 4, right: box.width - 4, top: 16, bottom: box.height - 18 };
  const first = points[0][0];
  const long = Math.max(60_000, last[0] - first);
  const x = (at) => area.right - ((last[0] - at) / long) * (area.right - area.left);
  const y = (value) => area.bottom - (value / most) * (area.bottom - area.top);
  g.strokeStyle = colours.line;
  g.lineWidth = 1;
  for (const at of [area.top, area.bottom]) {
    g.beginPath();
    g.moveTo(area.left, Math.round(at) + 0.5);
    g.lineTo(area.right, Math.round(at) + 0.5);
    g.stroke();
  }
  line(g, points, (point) => point[1], x, y, colours.spare, area.bottom, 0.22);
  line(g, points, held, x, y, colours.accent, null, 1);
  g.fillStyle = colours.soft;
  g.font = "11.5px system-ui, sans-serif";
  g.fillText(count(most), area.left, area.top - 4);
  g.fillText(clock(last[0] - long), area.left, box.height - 4);
  const end = clock(last[0]);
  g.fillText(end, area.right - g.measureText(end).width, box.height - 4);
  const now = [...points].reverse().find((point) => held(point) !== null);
  words.textContent = `${now ? count(held(now)) : "?"} held (line), ` +
    `${count(last[1])} in blocks (area)` +
    (shared ? "; what all nodes hold is counted while a page is open" : "");
}

/** A line through the points; where a value is not known, it is broken. */
function line(g, points, value, x, y, colour, floor, alpha) {
  g.strokeStyle = g.fillStyle = colour;
  g.lineWidth = 1.75;
  let piece = [];
  const end = () => {
    if (piece.length === 1) piece.push([piece[0][0] + 2, piece[0][1]]);
    if (piece.length > 0) {
      g.beginPath();
      piece.forEach(([px, py], at) => (at === 0 ? g.moveTo(px, py) : g.lineTo(px, py)));
      g.globalAlpha = 1;
      g.stroke();
      if (floor !== null) {
        g.lineTo(piece.at(-1)[0], floor);
        g.lineTo(piece[0][0], floor);
        g.globalAlpha = alpha;
        g.fill();
        g.globalAlpha = 1;
      }
    }
    piece = [];
  };
  for (const point of points) {
    const known = value(point);
    if (known === null || known === undefined) end();
    else piece.push([x(point[0]), y(known)]);
  }
  end();
}
