// Numbers and elements as the page shows them.

export const $ = (id) => document.getElementById(id);

/** An element with a class and children; strings become text. */
export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export const none = "–";
export const fixed = (digits) => (x) => (x === null || x === undefined ? none : x.toFixed(digits));
export const whole = (x) => (x === null || x === undefined ? none : Math.round(x).toLocaleString("en"));

export function short(x) {
  if (x === null || x === undefined) return none;
  const [, unit, size] = [
    [1e15, "Q", 1e15],
    [1e12, "T", 1e12],
    [1e9, "B", 1e9],
    [1e6, "M", 1e6],
  ].find(([from]) => x >= from) ?? [0, "", 1];
  return unit === "" ? whole(x) : `${(x / size).toFixed(2)} ${unit}`;
}

export const rate = (x) => (x === null || x === undefined ? none : x === 0 ? "0" : x.toExponential(2));

export function bytes(x) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  const power = x < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(x) / 3));
  return `${power === 0 ? x : (x / 1000 ** power).toFixed(1)} ${units[power]}`;
}

/** Seconds, rounded before they are split: no minute has sixty of them. */
export function time(s) {
  if (s === null || s === undefined) return none;
  if (s === 0) return "0 ms";
  if (s < 0.9995) return `${(s * 1000).toFixed(s < 0.01 ? 2 : s < 0.1 ? 1 : 0)} ms`;
  if (s < 59.5) return `${s.toFixed(s < 9.95 ? 1 : 0)} s`;
  const seconds = Math.round(s);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(s / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const age = (s) => (s < 1 ? "now" : s < 60 ? `${Math.floor(s)} s` : time(s));

/** The time of day, and the day where it is not today's. */
export function clock(iso) {
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}
