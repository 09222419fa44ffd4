// Making elements. Data becomes text or an attribute's value, never markup: the one place where that is decided.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((each) => each !== null && each !== undefined)); // append() takes text as text
  return node;
}

export const byId = (id) => document.getElementById(id);
export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

export function text(id, value) {
  const node = byId(id);
  if (node.textContent !== value) node.textContent = value;
}

// A bar's length is data: set through the style object, which the page's policy allows and markup cannot enter.
export function sized(node, percent) {
  node.style.width = `${Math.max(0, Math.min(100, percent))}%`;
  return node;
}
