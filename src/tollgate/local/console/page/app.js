// Takes the state document once a second and has each part of the page drawn. When the server is away the page says
// so and tries again, more slowly each time; what it showed stays, greyed.

import { drawLatency, drawOutcomes, drawRate, History } from "./charts.js";
import { byId, el, text } from "./dom.js";
import { drawFlagged } from "./flagged.js";
import { drawNext } from "./next.js";
import { drawPicture } from "./picture.js";
import { clock, lasting, milliseconds, number, percent } from "./words.js";

const QUIET_MS = 6000;
const LONGEST_MS = 10000;
const PAST = { approve: "approved", review: "to review", decline: "declined" };

let history = new History();
let source = null;
let delay = 1000;
let quiet = 0;

function connect() {
  source = new EventSource("api/events");
  history = new History();
  source.onmessage = (event) => {
    delay = 1000;
    document.body.classList.remove("away");
    watchQuiet();
    draw(JSON.parse(event.data));
  };
  source.onerror = lost;
  watchQuiet();
}

function watchQuiet() {
  clearTimeout(quiet);
  quiet = setTimeout(lost, QUIET_MS);
}

function lost() {
  clearTimeout(quiet);
  source.close();
  document.body.classList.add("away");
  pill("bad", "console away");
  cause("The console's server does not answer. This page tries again by itself; is Tollgate running? (tollgate status)", true);
  setTimeout(connect, delay);
  delay = Math.min(LONGEST_MS, delay * 1.7);
}

function draw(state) {
  history.take(state.history);
  if (document.hidden) return;
  head(state);
  const rate = state.flow.rate;
  drawPicture(byId("picture"), state.parts, {
    decided: rate > 0,
    dead: history.dead.slice(-5).some((each) => each > 0),
    never: false,
  });
  partsTable(state.parts);
  text("rate", number(rate, rate < 10 ? 1 : 0));
  text("total", `${number(state.flow.decided)} decided${state.flow.lag ? `, ${number(state.flow.lag)} waiting` : ""}`);
  text("p50", milliseconds(state.flow.p50_ms));
  text("p99", milliseconds(state.flow.p99_ms));
  outcomes(state.flow);
  drawRate(byId("chart-rate"), history);
  drawOutcomes(byId("chart-outcomes"), history);
  drawLatency(byId("chart-latency"), history);
  drawFlagged(state.flagged);
  serving(state.serving);
  deadLetters(state);
  links(state.links);
  drawNext(state);
  text("since", clock(state.began_at));
}

function head({ parts, root_cause: root, flow, ledger_trouble: ledger }) {
  const bad = parts.filter((each) => each.level === "bad").length;
  const ready = parts.filter((each) => each.level === "ok").length;
  if (!root && !flow.trouble) pill("ok", `all ${parts.length} parts run`);
  else if (bad) pill("bad", `${bad} of ${parts.length} parts down`);
  else pill("warn", parts.length ? `${ready} of ${parts.length} parts ready` : "not running");
  cause(root ?? flow.trouble ?? ledger, bad > 0);
}

function pill(level, words) {
  byId("status").className = `pill ${level}`;
  text("status", words);
}

function cause(words, bad) {
  byId("cause").hidden = !words;
  byId("cause").className = bad ? "banner bad" : "banner";
  text("cause", words ?? "");
}

function partsTable(parts) {
  const body = byId("parts").tBodies[0];
  if (!body.closest("details").open) return;
  body.replaceChildren(
    ...parts.map((each) =>
      el("tr", {}, el("th", { scope: "row" }, each.name), el("td", {}, el("span", { class: `dot ${each.level}` }), each.state), el("td", { class: "num" }, number(each.restarts)), el("td", { class: "num" }, each.lag === null ? "–" : number(each.lag)), el("td", {}, each.up_seconds === null ? "–" : lasting(each.up_seconds)), el("td", {}, each.note ?? (each.restarts && each.last_exit ? `last ended by ${each.last_exit}` : ""))),
    ),
  );
}

function outcomes({ outcomes: counts, decided }) {
  const cells = Object.entries(PAST).map(([name, past]) => {
    const count = counts[name] ?? 0;
    return el("span", { class: name }, el("strong", {}, number(count)), `${past}${decided ? `, ${percent(count / decided)}` : ""}`);
  });
  byId("outcomes").replaceChildren(...cells);
}

function serving({ models, policy_version: policy }) {
  const lines = models.flatMap((each) => [
    el("dt", {}, "Model"),
    el("dd", {}, el("b", {}, `${each.name} version ${each.version}`), ` ${each.role}, ${percent(each.share)} of decisions`, el("div", { class: "muted small mono" }, each.revision)),
  ]);
  if (!lines.length) lines.push(el("dt", {}, "Model"), el("dd", { class: "muted" }, "known with the first decision"));
  lines.push(el("dt", {}, "Policy"), el("dd", { class: policy ? "mono" : "muted" }, policy ?? "known with the first decision"));
  byId("serving").replaceChildren(...lines);
}

function deadLetters({ flow, dead_letters: letters }) {
  const counts = Object.entries(flow.dead).sort((a, b) => b[1] - a[1]);
  byId("dead-none").hidden = counts.length > 0;
  byId("dead-counts").replaceChildren(...counts.map(([reason, count]) => el("li", {}, reason, el("b", {}, number(count)))));
  byId("dead-last").replaceChildren(
    ...letters.slice(0, 3).map((each) => el("li", {}, el("b", {}, each.reason), ` ${each.detail}`, el("div", { class: "muted small" }, `${clock(each.at)}, from ${each.origin}`))),
  );
}

let linked = "";
function links(all) {
  const names = { mlflow: "MLflow", v2: "Model (V2)", guide: "Guide" };
  const shown = all.filter(({ name, url }) => Object.hasOwn(names, name) && url.startsWith("http://127.0.0.1:"));
  if (JSON.stringify(shown) === linked) return;
  linked = JSON.stringify(shown);
  byId("links").replaceChildren(...shown.map(({ name, url }) => el("a", { href: url, target: "_blank", rel: "noreferrer" }, names[name])));
}

connect();
