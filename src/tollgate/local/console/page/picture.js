// The picture of the flow: boxes for parts, edges for what passes between them. Two layouts: a screen's, a phone's.

import { svg } from "./dom.js";
import { number } from "./words.js";

const WIDE = {
  size: [1200, 292],
  topics: [["transactions", 150, 7], ["labels", 270, 7], ["decisions", 650, 7], ["dead-letters", 800, 7]],
  chip: 104,
  nodes: {
    kafka: { at: [2, 2, 1196, 36], name: "Kafka", bar: true },
    dispatcher: { at: [2, 72, 946, 36], name: "Broker", sub: "KafkaSource, Triggers and KafkaSinks: deliver each event, try again, or say why not", bar: true },
    you: { at: [2, 146, 212, 48], name: "Your CloudEvent", sub: "POSTed to the Broker", outside: true },
    decide: { at: [250, 146, 216, 48], name: "decide", sub: "asks the model, then policy" },
    record: { at: [502, 146, 210, 48], name: "record", sub: "into the ledger, once" },
    label: { at: [738, 146, 210, 48], name: "label", sub: "what it turned out to be" },
    gateway: { at: [292, 206, 132, 24], name: "gateway", small: true },
    mlflow: { at: [2, 242, 212, 48], name: "mlflow", sub: "model registry" },
    model: { at: [250, 242, 216, 48], name: "model", sub: "XGBoost on KServe" },
    postgres: { at: [502, 242, 446, 48], name: "postgres", sub: "tiles (sums per customer and terminal) · ledger · labels" },
    spark: { at: [984, 242, 214, 48], name: "spark", sub: "keeps the tiles" },
  },
  edges: [
    { d: "M150 29V72", by: ["kafka", "dispatcher"] },
    { d: "M270 29V72", by: ["kafka", "dispatcher"] },
    { d: "M650 72V29", by: ["dispatcher", "kafka"] },
    { d: "M800 72V29", by: ["dispatcher", "kafka"], when: "dead" },
    { d: "M108 146V108", by: ["dispatcher"], when: "never" },
    { d: "M344 108V146", by: ["dispatcher", "decide"] },
    { d: "M372 146V108", by: ["decide", "dispatcher"] },
    { d: "M593 108V146", by: ["dispatcher", "record"] },
    { d: "M621 146V108", by: ["record", "dispatcher"] },
    { d: "M843 108V146", by: ["dispatcher", "label"] },
    { d: "M358 194V206", by: ["decide", "gateway"], plain: true },
    { d: "M358 230V242", by: ["gateway", "model"] },
    { d: "M607 194V242", by: ["record", "postgres"], on: ["ledger", 616, 221] },
    { d: "M843 194V242", by: ["label", "postgres"], on: ["labels", 852, 221] },
    { d: "M502 266H466", by: ["postgres", "model"], on: ["tiles", 472, 258] },
    { d: "M214 266H250", by: ["mlflow", "model"], when: "never" },
    { d: "M1091 38V242", by: ["kafka", "spark"], on: ["every transaction", 1091, 140, "middle"] },
    { d: "M984 266H948", by: ["spark", "postgres"] },
  ],
};

const NARROW = {
  size: [360, 470],
  topics: [["transactions", 50, 38, 88], ["labels", 131, 38, 60], ["decisions", 206, 38, 76], ["dead-letters", 298, 38, 92]],
  nodes: {
    kafka: { at: [2, 2, 356, 66], name: "Kafka", bar: true, low: true },
    dispatcher: { at: [2, 100, 326, 48], name: "Broker", sub: "delivers, retries, or says why not", bar: true },
    decide: { at: [2, 186, 104, 48], name: "decide", sub: "policy" },
    record: { at: [116, 186, 104, 48], name: "record", sub: "once" },
    label: { at: [228, 186, 100, 48], name: "label", sub: "verdicts" },
    gateway: { at: [2, 258, 104, 24], name: "gateway", small: true },
    model: { at: [2, 306, 104, 48], name: "model", sub: "KServe" },
    postgres: { at: [136, 306, 192, 48], name: "postgres", sub: "tiles · ledger · labels" },
    mlflow: { at: [2, 404, 104, 48], name: "mlflow", sub: "registry" },
    spark: { at: [180, 404, 178, 48], name: "spark", sub: "keeps the tiles" },
  },
  edges: [
    { d: "M50 60V100", by: ["kafka", "dispatcher"] },
    { d: "M131 60V100", by: ["kafka", "dispatcher"] },
    { d: "M206 100V60", by: ["dispatcher", "kafka"] },
    { d: "M298 100V60", by: ["dispatcher", "kafka"], when: "dead" },
    { d: "M44 148V186", by: ["dispatcher", "decide"] },
    { d: "M64 186V148", by: ["decide", "dispatcher"] },
    { d: "M158 148V186", by: ["dispatcher", "record"] },
    { d: "M178 186V148", by: ["record", "dispatcher"] },
    { d: "M278 148V186", by: ["dispatcher", "label"] },
    { d: "M54 234V258", by: ["decide", "gateway"], plain: true },
    { d: "M54 282V306", by: ["gateway", "model"] },
    { d: "M168 234V306", by: ["record", "postgres"] },
    { d: "M278 234V306", by: ["label", "postgres"] },
    { d: "M136 330H106", by: ["postgres", "model"] },
    { d: "M54 404V354", by: ["mlflow", "model"], when: "never" },
    { d: "M345 68V404", by: ["kafka", "spark"] },
    { d: "M250 404V354", by: ["spark", "postgres"] },
  ],
};

const narrow = window.matchMedia("(max-width: 860px)");

// An arrow head at the end of a path that ends in V or H.
function tip(d) {
  const [, x0, y0, way, end] = /^M(\d+) (\d+)([VH])(\d+)$/.exec(d);
  const [x, y] = way === "V" ? [Number(x0), Number(end)] : [Number(end), Number(y0)];
  const back = way === "V" ? Math.sign(Number(y0) - y) : Math.sign(Number(x0) - x);
  const [dx, dy] = way === "V" ? [0, 7 * back] : [7 * back, 0];
  return `M${x} ${y}L${x + dx + (way === "V" ? 4.5 : 0)} ${y + dy + (way === "H" ? 4.5 : 0)}L${x + dx - (way === "V" ? 4.5 : 0)} ${y + dy - (way === "H" ? 4.5 : 0)}Z`;
}

// The state is told by shape as well as by colour: a disc, a square, a diamond.
function mark(level, x, y) {
  if (level === "bad") return svg("path", { class: "mark", d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` });
  if (level === "warn") return svg("rect", { class: "mark", x: x - 5, y: y - 5, width: 10, height: 10, rx: 2 });
  return svg("circle", { class: "mark", cx: x, cy: y, r: 5 });
}

function box(key, spec, part) {
  const [x, y, width, height] = spec.at;
  const level = spec.outside ? "outside" : (part?.level ?? "off");
  const group = svg("g", { class: level });
  group.append(svg("rect", { class: spec.bar ? "box bar" : "box", x, y, width, height, rx: spec.small ? 12 : 9 }));
  if (!spec.outside) group.append(svg("title", {}, `${key}: ${part ? part.state : "not started"}${part?.note ? `, ${part.note}` : ""}`));
  const middle = spec.low ? y + 18 : y + height / 2;
  const titleY = spec.sub && !spec.bar ? y + 21 : middle + 4.5;
  const left = spec.outside ? x + 14 : x + 28;
  if (!spec.outside) group.append(mark(level, x + 15, titleY - 4.5));
  group.append(svg("text", { class: "name", x: left, y: titleY }, spec.name));
  if (spec.sub) {
    const beside = spec.bar && width > 400;
    group.append(svg("text", { class: "sub", x: beside ? left + 56 : left, y: beside ? titleY : y + (spec.bar ? 40 : 39) }, spec.sub));
    if (spec.bar && !beside) group.querySelector(".name").setAttribute("y", y + 21);
  }
  const badges = [];
  if (part && part.level !== "ok") badges.push(part.state);
  if (part?.restarts) badges.push(`↻ ${part.restarts}`);
  if (part?.lag) badges.push(`${number(part.lag)} waiting`);
  if (badges.length) group.append(svg("text", { class: "badge", x: x + width - 10, y: width < 120 && spec.sub ? y + 39 : titleY }, badges.join("  ")));
  return group;
}

let drawn = "";

export function drawPicture(node, parts, active) {
  const layout = narrow.matches ? NARROW : WIDE;
  const signature = JSON.stringify([narrow.matches, active, parts.map((each) => [each.name, each.level, each.state, each.restarts, each.lag, each.note])]);
  if (signature === drawn) return; // a picture that did not change keeps its running edges
  drawn = signature;
  const byName = new Map(parts.map((each) => [each.name, each]));
  const up = (name) => byName.get(name)?.level === "ok";
  node.setAttribute("viewBox", `0 0 ${layout.size.join(" ")}`);
  node.replaceChildren(...Object.entries(layout.nodes).filter(([, spec]) => spec.bar).map(([key, spec]) => box(key, spec, byName.get(key))));
  for (const [name, x, y, width = layout.chip] of layout.topics) {
    node.append(svg("rect", { class: "chip", x: x - width / 2, y, width, height: 22, rx: 11 }), svg("text", { class: "topic", x, y: y + 15 }, name));
  }
  for (const edge of layout.edges) {
    const run = edge.by.every(up) && active[edge.when ?? "decided"] ? " run" : "";
    node.append(svg("path", { class: `edge${run}`, d: edge.d }));
    if (!edge.plain) node.append(svg("path", { class: `tip${run}`, d: tip(edge.d) }));
    if (edge.on) node.append(svg("text", { class: "on", x: edge.on[1], y: edge.on[2], "text-anchor": edge.on[3] }, edge.on[0]));
  }
  node.append(...Object.entries(layout.nodes).filter(([, spec]) => !spec.bar).map(([key, spec]) => box(key, spec, byName.get(key))));
  const told = parts.map((each) => `${each.name} ${each.state}${each.restarts ? `, restarted ${each.restarts} times` : ""}`).join("; ");
  node.setAttribute("aria-label", `Transactions go from Kafka through the Broker to decide, which asks the model; record stores the decision and it leaves on Kafka. ${told}`);
}
