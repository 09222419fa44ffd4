// The table of flagged transactions. Rows are kept by id, so that the keyboard's place survives an update.

import { byId, el, sized } from "./dom.js";
import { openDetail } from "./detail.js";
import { reasonBars } from "./reasons.js";
import { clock, money, percent } from "./words.js";

const rows = new Map();

export function drawFlagged(flagged) {
  byId("none").hidden = flagged.length > 0;
  byId("rows").hidden = flagged.length === 0;
  const first = rows.size === 0;
  const body = byId("rows").tBodies[0];
  const wanted = flagged.map((each) => {
    let row = rows.get(each.transaction_id);
    if (!row) {
      row = { node: make(each, !first), amount: false };
      rows.set(each.transaction_id, row);
    }
    if (!row.amount && each.amount_minor !== null) {
      row.node.querySelector(".num").textContent = money(each.amount_minor, each.currency);
      row.amount = true;
    }
    return row.node;
  });
  for (const [id, row] of rows) {
    if (!wanted.includes(row.node)) {
      row.node.remove();
      rows.delete(id);
    }
  }
  wanted.forEach((node, i) => {
    if (body.children[i] !== node) body.insertBefore(node, body.children[i] ?? null);
  });
}

function make(each, fresh) {
  const id = each.transaction_id;
  const button = el("button", { type: "button", class: "id mono", "aria-haspopup": "dialog" }, id);
  const node = el(
    "tr",
    { class: fresh ? "fresh" : null },
    el("td", {}, el("span", { class: `tag ${each.outcome}` }, each.outcome)),
    el("td", {}, button, el("div", { class: "muted small" }, clock(each.decided_at))),
    el("td", { class: "num" }, "…"),
    el("td", { class: "prob" }, percent(each.probability), el("div", { class: "gauge", "aria-hidden": "true" }, sized(el("i"), 100 * each.probability))),
    el("td", { class: "because" }, reasonBars(each.reasons, 3)),
  );
  node.addEventListener("click", () => openDetail(id)); // the button's click arrives here too
  return node;
}
