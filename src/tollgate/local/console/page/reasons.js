// Reasons as small bars to both sides: right speaks for fraud, left against it.

import { el, sized } from "./dom.js";
import { featureName, featureValue, number } from "./words.js";

export function reasonBars(reasons, most) {
  const largest = Math.max(1, ...reasons.map((each) => Math.abs(each.contribution)));
  const grid = el("div", { class: "why" });
  for (const each of reasons.slice(0, most)) {
    const side = each.contribution >= 0 ? "up" : "down";
    const signed = `${each.contribution >= 0 ? "+" : "−"}${number(Math.abs(each.contribution), 2)}`;
    grid.append(
      el("span", { class: "what", title: each.feature }, featureName(each.feature)),
      el("span", { class: "value" }, featureValue(each.feature, each.value)),
      el("span", { class: "bar2", "aria-hidden": "true" }, sized(el("i", { class: side }), (50 * Math.abs(each.contribution)) / largest)),
      el("span", { class: "move", title: "how far it moved the score, in log-odds" }, signed),
    );
  }
  return grid;
}
