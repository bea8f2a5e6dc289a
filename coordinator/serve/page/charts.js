// The curves: loss over step, tokens or time, with learning rate, gradient norm and speed under it, and other runs
// beside it. uPlot draws; this file decides what is drawn.
import { $, element, fixed, rate, short, time, whole } from "./format.js";
import uPlot from "./uplot.js";

const colorOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
/** Colors of runs that are compared with this one. */
const otherColors = ["other1", "other2", "other3", "other4", "other5"];

/** What the person has chosen; it stays in this browser. */
const choices = {
  x: "step",
  logarithmic: false,
  smoothing: 40,
  ...JSON.parse(localStorage.getItem("weft-curves") ?? "{}"),
};
const remember = () => localStorage.setItem("weft-curves", JSON.stringify(choices));

/** This run's curves. */
let own;
/** Compared runs by name, in the order in which they were chosen. */
const others = new Map();
let plots = [];
let zoomed = false;

const panels = [
  { id: "plotRate", column: "learningRate", show: rate },
  { id: "plotNorm", column: "gradientNorm", show: fixed(3) },
  { id: "plotSpeed", column: "tokensPerSec", show: whole },
];

/** Mean of the points around each, the nearer counting more: from both sides, so that a falling curve is not late. */
function smoothed(values) {
  // The slider's first tenths matter most: 100 is a mean over a tenth of the curve.
  const keep = 1 - 1 / (1 + (values.length / 20) * (choices.smoothing / 100) ** 2);
  const [sums, weights] = [new Float64Array(values.length), new Float64Array(values.length)];
  for (const backward of [false, true]) {
    let [sum, weight] = [0, 0];
    for (let n = 0; n < values.length; n++) {
      const i = backward ? values.length - 1 - n : n;
      [sum, weight] = [keep * sum, keep * weight];
      if (values[i] !== null) {
        sum += values[i];
        weight++;
      }
      sums[i] += sum;
      weights[i] += weight;
    }
  }
  return values.map((value, i) => (value === null ? null : sums[i] / weights[i]));
}

/** Column of the x axis: step, tokens or seconds. */
const xsOf = (columns) => columns[choices.x] ?? columns.step;

/** x must rise: two points of one moment would be drawn backwards. */
function table(columns, ...ys) {
  const xs = xsOf(columns);
  const keep = xs.map((x, i) => i === 0 || x > xs[i - 1]);
  return [xs, ...ys].map((values) => values.filter((_, i) => keep[i]));
}

const showX = (x) => (choices.x === "seconds" ? time(x) : choices.x === "tokens" ? short(x) : whole(x));
const finite = (values) => values.map((value) => (Number.isFinite(value) ? value : null));

/** Ticks of a logarithmic axis: round numbers, also where it spans less than a power of ten. */
function logTicks(_plot, _axis, low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const digit of high / low < 5 ? [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : [1, 2, 5]) {
      const tick = digit * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  return ticks;
}

const axis = (more) => ({
  stroke: () => colorOf("faint"),
  grid: { stroke: () => colorOf("line"), width: 1 },
  ticks: { show: false },
  font: "12px system-ui, sans-serif",
  ...more,
});

function makePlot(target, series, data, { logarithmic = false, small = false, show }) {
  const box = $(target);
  const sizeOf = () => ({ width: Math.max(80, box.clientWidth), height: Math.max(80, box.clientHeight) });
  const options = {
    ...sizeOf(),
    legend: { show: false },
    padding: [8, 22, 0, 0],
    cursor: {
      sync: { key: "run" },
      drag: { x: true, y: false, dist: 5 },
      points: { size: small ? 6 : 8 },
    },
    scales: { x: { time: false }, y: logarithmic ? { distr: 3, log: 10 } : {} },
    axes: [
      axis({
        size: 30,
        space: small ? 70 : 110,
        values: (_plot, ticks) => ticks.map((x) => (x === null ? "" : showX(x))),
      }),
      axis({
        size: small ? 56 : 48,
        space: 34,
        ...(logarithmic && { splits: logTicks, filter: (_plot, ticks) => ticks }),
        values: (_plot, ticks) => ticks.map((y) => (y === null ? "" : show(y))),
      }),
    ],
    series: [{}, ...series],
    hooks: {
      setScale: [
        (plot, key) => {
          if (key !== "x" || plot.data[0].length === 0) return;
          const [first, last] = [plot.data[0][0], plot.data[0].at(-1)];
          zoomed = plot.scales.x.min > first || plot.scales.x.max < last;
          $("resetZoom").disabled = !zoomed;
          // Zoomed together: the other charts follow.
          if (zoomed)
            for (const other of plots)
              if (other !== plot && other.scales.x.min !== plot.scales.x.min)
                other.setScale("x", { min: plot.scales.x.min, max: plot.scales.x.max });
        },
      ],
      setCursor: small ? [] : [showTip],
    },
  };
  box.replaceChildren();
  const plot = new uPlot(options, data, box);
  plot.over.addEventListener("dblclick", resetZoom);
  new ResizeObserver(() => plot.setSize(sizeOf())).observe(box);
  return plot;
}

const line = (color, width = 1.5) => ({ stroke: () => colorOf(color), width, spanGaps: true, points: { show: false } });
const marks = (color) => ({
  stroke: () => colorOf(color),
  paths: () => null,
  points: { show: true, size: 8, width: 2, stroke: () => colorOf("card"), fill: () => colorOf(color) },
});

/** Tables of the loss chart, and its series, this run's first. */
function lossData() {
  const raw = finite(own.train.lossNats);
  const tables = [table(own.train, raw, smoothed(raw)), table(own.validation, finite(own.validation.valLossNats))];
  const series = [line("accent-soft"), line("accent", 2), marks("val")];
  let i = 0;
  for (const other of others.values()) {
    const color = otherColors[i++ % otherColors.length];
    const { train, validation } = other;
    tables.push(table(train, smoothed(finite(train.lossNats))));
    tables.push(table(validation, finite(validation.valLossNats)));
    series.push(line(color, 1.5), marks(color));
  }
  return {
    data: uPlot.join(
      tables.map((columns) => (columns[0].length === 0 ? [[0], ...columns.slice(1).map(() => [null])] : columns)),
    ),
    series,
  };
}

function panelData({ column }) {
  const raw = finite(own.train[column]);
  const tables = [table(own.train, raw, smoothed(raw))];
  const series = [line("accent-soft", 1), line("accent")];
  let i = 0;
  for (const other of others.values()) {
    tables.push(table(other.train, smoothed(finite(other.train[column]))));
    series.push(line(otherColors[i++ % otherColors.length], 1));
  }
  return { data: uPlot.join(tables), series };
}

/** All charts anew: what is drawn, or how, has changed. */
function rebuild() {
  if (!own || own.train.step.length === 0) return;
  for (const plot of plots) plot.destroy();
  plots = [];
  zoomed = false;
  $("resetZoom").disabled = true;
  const { logarithmic } = choices;
  const loss = lossData();
  const made = [makePlot("plot", loss.series, loss.data, { logarithmic, show: fixed(2) })];
  for (const panel of panels) {
    const { series, data } = panelData(panel);
    made.push(makePlot(panel.id, series, data, { small: true, show: panel.show }));
  }
  plots = made;
  $("plot").append(element("div", "tip"));
  showLegend();
}

/** New points of the same curves; a zoomed view stays where it is. */
function update() {
  if (plots.length === 0) return rebuild();
  const stays = zoomed ? { ...plots[0].scales.x } : undefined;
  plots[0].setData(lossData().data, !stays);
  for (const [i, panel] of panels.entries()) plots[i + 1].setData(panelData(panel).data, !stays);
  if (stays) for (const plot of plots) plot.setScale("x", { min: stays.min, max: stays.max });
}

function resetZoom() {
  zoomed = false;
  for (const plot of plots) plot.setData(plot.data, true);
  $("resetZoom").disabled = true;
}

function showLegend() {
  const key = (className, text, color) => {
    const made = element("span", `key ${className}`, text);
    if (color) made.style.setProperty("--key", `var(--${color})`);
    return made;
  };
  let i = 0;
  $("legend").replaceChildren(
    key("", "each step", "accent-soft"),
    key("", "smoothed", "accent"),
    key("dot", "validation", "val"),
    ...[...others.keys()].map((name) => key("", name, otherColors[i++ % otherColors.length])),
  );
}

/** What the curves say under the pointer. */
function showTip(plot) {
  const tip = $("plot").querySelector(".tip");
  if (!tip) return;
  const { idx, left } = plot.cursor;
  tip.hidden = idx === null || idx === undefined || left < 0;
  if (tip.hidden) return;
  const x = plot.data[0][idx];
  const xs = xsOf(own.train);
  let nearest = 0;
  for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i] - x) < Math.abs(xs[nearest] - x)) nearest = i;
  const at = (column) => own.train[column][nearest];
  const near = xsOf(own.validation).findIndex((v) => v === xs[nearest] || v === x);
  const lines = [
    `step ${whole(at("step"))}, ${short(at("tokens"))} tokens, ${time(at("seconds"))}`,
    `loss ${fixed(4)(at("lossNats"))}`,
    `smoothed ${fixed(4)(plot.data[2].slice(0, idx + 1).findLast((y) => y !== null && y !== undefined))}`,
    ...(near < 0 ? [] : [`validation ${fixed(4)(own.validation.valLossNats[near])}`]),
    `gradient norm ${fixed(3)(at("gradientNorm"))}`,
    `learning rate ${rate(at("learningRate"))}`,
    `${whole(at("tokensPerSec"))} tokens/s`,
    ...[...others.keys()].map((name, i) => {
      const value = plot.data[4 + 2 * i].slice(0, idx + 1).findLast((y) => y !== null && y !== undefined);
      return `${name} ${fixed(4)(value)}`;
    }),
  ];
  tip.textContent = lines.join("\n");
  const offset = plot.over.offsetLeft + left;
  tip.style.left = `${offset > plot.width / 2 ? offset - tip.offsetWidth - 14 : offset + 14}px`;
}

/** The run's curves, again and again. */
export function showCurves(curves) {
  own = curves;
  update();
}

/** Add or remove another run. @param curves undefined: remove */
export function compareWith(name, curves) {
  if (curves) others.set(name, curves);
  else others.delete(name);
  rebuild();
}

export function startCharts() {
  const showChoices = () => {
    for (const button of document.querySelectorAll("[data-x]"))
      button.setAttribute("aria-pressed", String(button.dataset.x === choices.x));
    $("logarithmic").checked = choices.logarithmic;
    $("smoothing").value = choices.smoothing;
    $("smoothingShown").textContent = choices.smoothing === 0 ? "none" : `${choices.smoothing} %`;
  };
  const choose = (changed, how) => {
    Object.assign(choices, changed);
    remember();
    showChoices();
    how();
  };
  for (const button of document.querySelectorAll("[data-x]"))
    button.addEventListener("click", () => choose({ x: button.dataset.x }, rebuild));
  $("logarithmic").addEventListener("change", (event) => choose({ logarithmic: event.target.checked }, rebuild));
  $("smoothing").addEventListener("input", (event) => choose({ smoothing: Number(event.target.value) }, update));
  $("resetZoom").addEventListener("click", resetZoom);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots) plot.redraw(false, true);
  });
  showChoices();
}

/** For tests and the curious in the browser's console: what is drawn now. */
globalThis.weftPlots = () => plots;
