// The details of one decision, as the ledger holds it, in a dialog.

import { byId, el, text } from "./dom.js";
import { reasonBars } from "./reasons.js";
import { featureName, featureValue, milliseconds, money, number, percent } from "./words.js";

const dialog = byId("detail");
byId("detail-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});

export async function openDetail(id) {
  text("detail-title", `Transaction ${id}`);
  const body = byId("detail-body");
  body.replaceChildren(el("p", { class: "empty" }, "looking into the ledger ..."));
  if (!dialog.open) dialog.showModal();
  try {
    const answer = await fetch(`api/decisions/${encodeURIComponent(id)}`);
    const found = await answer.json();
    body.replaceChildren(...(answer.ok ? content(found) : [el("p", { class: "banner bad" }, found.error)]));
  } catch {
    body.replaceChildren(el("p", { class: "banner bad" }, "The console does not answer; try again in a moment."));
  }
}

function content({ decision, transaction, features, labels, costs }) {
  const { outcome, model } = decision;
  const verdicts = Object.entries(labels).map(([source, fraud]) => `${source}: ${fraud ? "fraud" : "no fraud"}`);
  const parts = [
    el("p", { class: "figure" }, el("span", { class: `tag ${outcome}` }, outcome), " ", el("strong", {}, money(transaction.amount_minor, transaction.currency)), ` at ${percent(decision.probability)} fraud probability`),
    facts([
      ["Customer", transaction.customer_id],
      ["Terminal", transaction.terminal_id],
      ["Occurred", [transaction.occurred_at, transaction.channel, transaction.country].filter(Boolean).join(", ")],
      ["Decided", `${decision.decided_at}, ${milliseconds(decision.latency_ms)} after it arrived`],
      ["Model", `${model.name} version ${model.version}, ${model.role} (${model.revision})`],
      ["Policy", decision.policy_version],
      ["Features as of", decision.features_as_of ?? "unknown"],
      ["Degraded", decision.degraded ? `yes: ${decision.degraded_why ?? "no reason was given"}` : null],
      ["Turned out", verdicts.join(", ") || "no label yet"],
    ]),
  ];
  if (costs) {
    parts.push(el("h3", {}, "What the policy expected each outcome to cost: the cheapest wins"), costCards(costs, outcome, transaction.currency));
  }
  if (decision.reasons.length) parts.push(el("h3", {}, "Reasons: what moved the score most"), reasonBars(decision.reasons, 8));
  parts.push(
    el("h3", {}, "Everything the model saw"),
    el("div", { class: "features" }, ...features.map(({ name, value }) => el("div", { title: name }, el("span", {}, featureName(name)), el("span", {}, featureValue(name, value))))),
  );
  return parts;
}

function facts(pairs) {
  return el("dl", {}, ...pairs.filter(([, value]) => value !== null).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function costCards(costs, outcome, currency) {
  return el("div", { class: "costs" }, ...Object.entries(costs).map(([name, cost]) => el("div", { class: name === outcome ? `${name} chosen` : "muted" }, `${name}${name === outcome ? " ✓" : ""}`, el("strong", {}, Number.isFinite(cost) ? money(cost * 100, currency) : number(cost)))));
}
