// What to try next: commands to copy. They change with what is there, and keep their place while they do not.

import { byId, el } from "./dom.js";

function ideas({ flow, parts, flagged, links }) {
  const broker = links.find((each) => each.name === "broker")?.url;
  const decide = parts.find((each) => each.name === "decide" && each.pid);
  const clear = flagged[0] && /^[\w:.-]+$/.test(flagged[0].transaction_id); // what goes into a shell is checked here too
  const list = [];
  if (!flow.rate) list.push(["Let transactions flow", "tollgate simulate --rate 50"]);
  if (clear) list.push(["Why was the last one flagged?", `tollgate explain ${flagged[0].transaction_id}`]);
  if (Object.keys(flow.dead).length) list.push(["See the dead letters, then send one again", "tollgate dlq list"]);
  if (broker) list.push(["Send a transaction of your own", post(broker)]);
  list.push(["Let fraudsters change their habits", "tollgate simulate --rate 50 --drift"]);
  if (decide) list.push(["Kill a part: it comes back, nothing is lost", `kill -9 ${Number(decide.pid)}`]);
  return list;
}

const post = (broker) =>
  `ID=me-$(date +%s); curl -i ${broker} -H "ce-id: $ID" -H "ce-specversion: 1.0" -H "ce-source: /me" -H "ce-type: dev.tollgate.transaction.requested" -H "content-type: application/json" ` +
  `-d '{"transaction_id":"'$ID'","customer_id":"me","terminal_id":"shop","amount_minor":95000,"currency":"EUR","occurred_at":"'$(date -u +%FT%TZ)'"}'`;

const shown = new Map();

export function drawNext(state) {
  const list = ideas(state).slice(0, 5);
  const items = list.map(([what, command]) => {
    let item = shown.get(what);
    if (!item) {
      item = make(what);
      shown.set(what, item);
    }
    if (item.code.textContent !== command) item.code.textContent = command;
    return item.node;
  });
  const node = byId("next");
  if (items.some((each, i) => node.children[i] !== each) || node.children.length !== items.length) node.replaceChildren(...items);
}

function make(what) {
  const code = el("code", { tabindex: "0" });
  const button = el("button", { type: "button", "aria-label": `Copy: ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard: at least it is selected
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return { node: el("li", {}, el("p", {}, what), el("div", { class: "command" }, code, button)), code };
}
