// Numbers, addresses and times in words, and small helpers for the document.

const whole = new Intl.NumberFormat("en");

/** A count. Beyond a billion it is rounded: nobody reads the digits of a /64. */
export function count(number) {
  if (number === null || number === undefined) return "?";
  if (number < 1e9) return whole.format(number);
  const power = Math.floor(Math.log10(number));
  return `${(number / 10 ** power).toFixed(1)} × 10${superscript(power)}`;
}

function superscript(number) {
  return String(number).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
}

/** A part of a whole; what is neither none nor all never looks like it. */
export function percent(part, all) {
  if (part === null || part === undefined) return "?";
  if (part === 0 || all === 0) return "0 %";
  const share = (100 * part) / all;
  if (share < 1) return "<1 %";
  if (share > 99 && part < all) return ">99 %";
  return `${Math.round(share)} %`;
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** The time of day, with the date if it is another day. */
export function clock(ms) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString()
    ? time : `${at.toLocaleDateString("en-GB")} ${time}`;
}

/** How long ago something was. */
export function ago(ms) {
  const s = Math.max(0, Math.round((Date.now() - ms) / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.round(s / 60)} min ago`;
  if (s < 86400) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} d ago`;
}

/** An address as a number (BigInt). Null: it is none. */
export function number(text) {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) {
    const bytes = text.split(".").map(Number);
    if (bytes.some((byte) => byte > 255)) return null;
    return BigInt(((bytes[0] * 256 + bytes[1]) * 256 + bytes[2]) * 256 + bytes[3]);
  }
  if (!/^[0-9a-f:]+$/i.test(text) || !text.includes(":")) return null;
  const halves = text.split("::");
  const groups = (half) => (half ? half.split(":") : []);
  const [head, tail] = [groups(halves[0]), groups(halves[1])];
  const zeros = halves.length === 2 ? 8 - head.length - tail.length : 0;
  const all = [...head, ...Array(Math.max(0, zeros)).fill("0"), ...tail];
  const isGroup = (group) => /^[0-9a-f]{1,4}$/i.test(group);
  if (halves.length > 2 || all.length !== 8 || !all.every(isGroup)) return null;
  return BigInt(`0x${all.map((group) => group.padStart(4, "0")).join("")}`);
}

/** A number as an address. */
export function address(value, family) {
  if (family === "ipv4") {
    return [24n, 16n, 8n, 0n].map((bits) => (value >> bits) & 255n).join(".");
  }
  const groups = [];
  for (let bits = 112n; bits >= 0n; bits -= 16n) {
    groups.push(((value >> bits) & 65535n).toString(16));
  }
  // The longest run of zeros is left out (RFC 5952).
  let best = [0, 0];
  for (let at = 0; at < 8; at++) {
    let end = at;
    while (end < 8 && groups[end] === "0") end++;
    if (end - at > best[1]) best = [at, end - at];
  }
  if (best[1] < 2) return groups.join(":");
  const [at, length] = best;
  return `${groups.slice(0, at).join(":")}::${groups.slice(at + length).join(":")}`;
}

export const bits = (family) => (family === "ipv4" ? 32 : 128);

/** The first address of a prefix, as a number, and how many addresses it covers. */
export function span(prefix, family) {
  const [first, length] = prefix.split("/");
  return { first: number(first) ?? 0n, size: 2 ** (bits(family) - Number(length)) };
}

/** A new element. What is not an element becomes text: nothing that a pod is called is markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "onclick") made.addEventListener("click", value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A small bar: a part of a whole, and a mark for the mean. */
export function bar(share, mean = null) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "fill");
  svg.setAttribute("viewBox", "0 0 100 8");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const rect = (name, width) => {
    const made = document.createElementNS(space, "rect");
    made.setAttribute("class", name);
    made.setAttribute("width", Math.max(0, Math.min(100, width)));
    made.setAttribute("height", 8);
    svg.append(made);
  };
  rect("all", 100);
  // Something is never drawn as nothing.
  if (share > 0) rect(share >= 0.95 && mean === null ? "full" : "part", Math.max(1.5, share * 100));
  if (mean !== null) {
    const line = document.createElementNS(space, "path");
    line.setAttribute("class", "mean");
    line.setAttribute("d", `M${mean * 100} 0V8`);
    svg.append(line);
  }
  return svg;
}
