// How numbers, times and features read.

const AGGREGATES = { count: "transactions", sum: "spent", mean: "mean amount", max: "largest amount", std: "spread of amounts", fraud_rate: "fraud rate" };
const PLAIN = { amount: "amount", is_night: "at night", is_weekend: "at the weekend" };

const span = (text) => text.replace(/^(\d+)(min|h|d)$/, "$1 $2");

export function featureName(name) {
  if (name === null) return "(another version's feature)";
  if (Object.hasOwn(PLAIN, name)) return PLAIN[name];
  const over = /^amount_over_customer_mean_(\w+)$/.exec(name);
  if (over) return `amount ÷ customer's mean, ${span(over[1])}`;
  const window = /^(customer|terminal)_(count|sum|mean|max|std|fraud_rate)_(\d+(?:min|h|d))$/.exec(name);
  return window ? `${window[1]}: ${AGGREGATES[window[2]]}, ${span(window[3])}` : name;
}

export function featureValue(name, value) {
  if (name === null) return number(value, 3);
  if (name.startsWith("is_")) return value ? "yes" : "no";
  if (name.includes("fraud_rate")) return percent(value);
  if (name.includes("_count_")) return number(value, 0);
  if (name.startsWith("amount_over")) return `× ${number(value, 1)}`;
  return number(value, 2);
}

export const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const percent = (share) => `${number(100 * share, share > 0 && share < 0.1 ? 1 : 0)} %`;
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

export function milliseconds(value) {
  if (value === null) return "–";
  return value < 1000 ? `${number(value, value < 10 ? 1 : 0)} ms` : `${number(value / 1000, 1)} s`;
}

export function money(minor, currency) {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency }).format(minor / 100);
  } catch {
    return `${number(minor / 100, 2)} ${currency}`;
  }
}

export function lasting(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${number(seconds / 3600, 1)} h`;
}
