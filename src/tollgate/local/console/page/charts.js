// The three charts. The server's history comes in steps; each chart keeps its SVG and only changes paths.

import { el, svg } from "./dom.js";
import { milliseconds, number } from "./words.js";

const STEPS = 150; // 5 minutes of 2 s
const HEIGHT = 100;
const COLUMNS = ["approve", "review", "decline", "dead", "p50_ms", "p99_ms"];

export class History {
  constructor() {
    this.last = 0;
    for (const name of COLUMNS) this[name] = [];
  }

  // Takes the steps since the last document; a server that started again begins anew.
  take(fresh) {
    if (fresh.last < this.last) this.last = 0;
    const count = fresh.approve.length;
    const gap = fresh.last - this.last !== count;
    for (const name of COLUMNS) {
      this[name] = (gap ? [] : this[name]).concat(fresh[name]).slice(-STEPS);
    }
    this.last = fresh.last;
    this.step = fresh.step_s;
  }
}

function frame(node) {
  const plot = node.parentNode;
  for (const old of plot.querySelectorAll(".tick")) old.remove();
  if (!plot.querySelector(".from")) {
    plot.append(el("span", { class: "from" }, "5 min ago"), el("span", { class: "to" }, "now"));
    node.setAttribute("viewBox", `0 0 ${STEPS} ${HEIGHT}`);
  }
  node.replaceChildren();
}

function tick(node, y, label) {
  node.append(svg("line", { class: "grid", x1: 0, x2: STEPS, y1: y, y2: y }));
  const mark = el("span", { class: "tick" }, label);
  mark.style.top = `${y}%`;
  node.parentNode.append(mark);
}

// Right-aligned: the newest step ends at "now". Steps without a value leave a hole.
function path(values, y, floor = null) {
  const from = STEPS - values.length;
  let d = "";
  let open = false;
  values.forEach((value, i) => {
    if (value === null) {
      open = false;
      return;
    }
    d += `${open ? "L" : "M"}${from + i + 0.5} ${y(value).toFixed(2)}`;
    open = true;
  });
  if (floor !== null && d) d += `L${STEPS - 0.5} ${floor}L${from + 0.5} ${floor}Z`;
  return d;
}

function top(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((each) => each * power).find((each) => each >= value);
}

export function drawRate(node, history) {
  frame(node);
  const raw = history.approve.map((each, i) => (each + history.review[i] + history.decline[i]) / history.step);
  const rates = raw.map((_, i) => {
    const near = raw.slice(Math.max(0, i - 2), i + 1);
    return near.reduce((sum, each) => sum + each, 0) / near.length;
  });
  const peak = Math.max(0, ...rates);
  const most = top(peak * 1.1);
  const y = (value) => HEIGHT - (96 * value) / most;
  tick(node, y(most), number(most));
  node.append(svg("path", { class: "area", d: path(rates, y, HEIGHT) }), svg("path", { class: "line", d: path(rates, y) }));
  node.setAttribute("aria-label", `Decisions per second over 5 minutes: now ${number(rates.at(-1) ?? 0)}, at most ${number(peak)}`);
}

export function drawOutcomes(node, history) {
  frame(node);
  const totals = history.approve.map((each, i) => each + history.review[i] + history.decline[i]);
  const most = top(Math.max(1, ...totals) * 1.1);
  const from = STEPS - totals.length;
  const paths = { decline: "", review: "", approve: "" };
  totals.forEach((_, i) => {
    let y = HEIGHT;
    for (const name of Object.keys(paths)) {
      const count = history[name][i];
      if (!count) continue;
      const height = Math.max((96 * count) / most, name === "approve" ? 0 : 1.5); // one flagged of many must be seen
      paths[name] += `M${from + i} ${y}v${-height}h0.86v${height}z`;
      y -= height;
    }
  });
  tick(node, HEIGHT - 96, `${number(most)} in ${history.step} s`);
  for (const [name, d] of Object.entries(paths)) node.append(svg("path", { class: `${name}-area`, d }));
  const sum = (name) => number(history[name].reduce((all, each) => all + each, 0));
  node.setAttribute("aria-label", `Outcomes over 5 minutes: ${sum("approve")} approved, ${sum("review")} to review, ${sum("decline")} declined`);
}

// A logarithmic scale: a part that restarts makes single decisions wait for seconds, and the usual must stay readable.
export function drawLatency(node, history) {
  frame(node);
  const known = [...history.p50_ms, ...history.p99_ms].filter((each) => each !== null);
  const low = Math.log10(Math.max(1, Math.min(8, ...known)));
  const high = Math.log10(Math.max(100, ...known) * 1.2);
  const y = (value) => HEIGHT - 2 - (94 * (Math.log10(Math.max(value, 1)) - low)) / (high - low);
  for (let power = Math.ceil(low); power <= high; power += 1) tick(node, y(10 ** power), milliseconds(10 ** power));
  node.append(svg("path", { class: "line calm", d: path(history.p50_ms, y) }), svg("path", { class: "line", d: path(history.p99_ms, y) }));
  node.setAttribute("aria-label", `Latency over 5 minutes: median now ${milliseconds(history.p50_ms.at(-1) ?? null)}, p99 now ${milliseconds(history.p99_ms.at(-1) ?? null)}`);
}
