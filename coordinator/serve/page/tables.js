// What stands in rows: workers, those that left, events, samples, checkpoints, options and data.
import { $, age, bytes, clock, element, fixed, none, time, whole } from "./format.js";

/** Rows that are shown before somebody asks for all. */
const few = { workers: 12, events: 12 };
const all = { workers: false, events: false };

function rows(table, heads, lines) {
  const cell = (tag) => (content, i) => {
    const [label, className] = heads[i];
    const children = [content].flat().filter((child) => child !== "");
    const made = element(
      tag,
      className ?? "",
      ...(tag === "td" && children.length > 1 ? [element("div", "", ...children)] : children),
    );
    if (tag === "th") made.scope = "col";
    else {
      made.dataset.label = label;
      if (made.textContent === none) made.classList.add("none");
    }
    return made;
  };
  table.replaceChildren(
    element("thead", "", element("tr", "", ...heads.map(([label], i) => cell("th")(label, i)))),
    element(
      "tbody",
      "",
      ...lines.map(({ className = "", cells }) => element("tr", className, ...cells.map(cell("td")))),
    ),
  );
}

function more(what, count) {
  const button = $(`${what}More`);
  button.hidden = count <= few[what];
  button.textContent = all[what] ? "Show fewer" : `Show all ${count}`;
}

const byName = (a, b) => a.id.localeCompare(b.id, "en", { numeric: true });

export function showWorkers(s) {
  const gone = s.gone ?? [];
  $("workersNote").textContent = `${s.workers.length} connected${gone.length > 0 ? `, ${gone.length} left` : ""}`;
  more("workers", s.workers.length + gone.length);
  if (s.workers.length + gone.length === 0) {
    $("workers").replaceChildren(element("caption", "empty", "No worker is connected."));
    return;
  }
  const heads = [
    ["worker", "left"],
    ["device", "left"],
    ["state", "left"],
    ["step"],
    ["leases"],
    ["shards"],
    ["tokens / s"],
    ["computes"],
    ["in"],
    ["out"],
    ["round trip"],
    ["connected"],
  ];
  const here = s.workers.toSorted(byName).map((w) => ({
    cells: [
      [element("span", "", w.id), element("small", "", w.host)],
      [element("span", "", w.device), element("small", "", w.arithmetic)],
      element("span", `badge ${w.state}`, w.state),
      whole(w.step),
      whole(w.leasesHeld),
      whole(w.shardsDone),
      whole(w.tokensPerSec),
      w.utilisation === null ? none : `${Math.round(100 * w.utilisation)}%`,
      bytes(w.bytesIn),
      bytes(w.bytesOut),
      w.roundTripMs === null ? none : `${w.roundTripMs.toFixed(1)} ms`,
      age(w.connectedSeconds),
    ],
  }));
  const away = gone.map((w) => ({
    className: "away",
    cells: [
      [element("span", "", w.id), element("small", "", w.host)],
      [element("span", "", w.device || none), element("small", "", w.why)],
      element("span", "badge gone", "left"),
      none,
      none,
      whole(w.shardsDone),
      none,
      none,
      none,
      none,
      none,
      clock(w.at),
    ],
  }));
  const lines = [...here, ...away];
  // Who left is never below the fold: that is what one looks for.
  const shown = all.workers
    ? lines
    : [...here.slice(0, Math.max(few.workers - away.length, 4)), ...away.slice(0, few.workers)];
  rows($("workers"), heads, shown);
}

/** As a shell takes it. */
const quoted = (word) => (/^[\w.:-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** Who gave wrong answers, and what lets each in again; a run that found nobody has no such card. */
export function showQuarantine(list) {
  $("quarantineCard").hidden = list.length === 0;
  const heads = [
    ["worker", "left"],
    ["address", "left"],
    ["why", "left why"],
    ["since", "left"],
    ["lets it in again", "left"],
  ];
  rows(
    $("quarantine"),
    heads,
    list.map(({ names, address, why, step, at }) => ({
      cells: [
        [element("span", "", names[0]), element("small", "", names.slice(1).join(", "))],
        address ?? none,
        `it ${why}`,
        [element("span", "", clock(at)), element("small", "", `step ${whole(step)}`)],
        element("code", "", `--resume --allow ${quoted(names[0])}`),
      ],
    })),
  );
}

let events = [];

/** @param added newer events than those shown @param anew they are of another coordinator process */
export function showEvents(added, anew) {
  if (anew) events = [];
  events = [...events, ...added].slice(-1000);
  $("eventsNote").textContent = `${whole(events.length)} events`;
  more("events", events.length);
  const shown = events.slice(all.events ? 0 : -few.events).reverse();
  if (shown.length === 0) $("events").replaceChildren(element("li", "empty", "Nothing yet."));
  else
    $("events").replaceChildren(
      ...shown.map(({ at, kind, text }) => {
        const when = element("time", "", clock(at));
        when.dateTime = at;
        return element("li", "", when, element("span", `badge ${kind}`, kind), element("span", "", text));
      }),
    );
}

/** Newest first; a run that draws none has no such card. */
export function showSamples(samples) {
  $("samplesCard").hidden = !samples || samples.length === 0;
  if ($("samplesCard").hidden) return;
  const newest = samples.slice(-3).reverse();
  $("samples").replaceChildren(
    ...newest.map(({ step, text }) =>
      element("div", "sample", element("small", "", `step ${whole(step)}`), element("pre", "", text)),
    ),
  );
}

/** Files of checkpoints that somebody asked for, by name. */
const files = new Map();

export function showCheckpoints(list, get) {
  $("pullLine").hidden = list.length === 0;
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  $("pull").textContent = `weft pull --from ${base} --step ${list.some((c) => c.best) ? "best" : "latest"}`;
  if (list.length === 0) {
    $("checkpoints").replaceChildren(element("caption", "empty", "None yet."));
    return;
  }
  const download = (c) => {
    const known = files.get(c.name);
    if (known) {
      const links = known.map((file) => {
        const link = element("a", "", file);
        link.href = `checkpoints/${c.name}/${file}`;
        link.download = `${c.name}-${file}`;
        return link;
      });
      return element("span", "files", ...links);
    }
    const button = element("button", "quiet", "Files");
    button.type = "button";
    button.addEventListener("click", async () => {
      const manifest = await get(`checkpoints/${c.name}/manifest.json`);
      files.set(c.name, Object.keys(manifest.files));
      showCheckpoints(list, get);
    });
    return button;
  };
  const heads = [
    ["name", "left"],
    ["step"],
    ["validation loss"],
    ["size"],
    ["age"],
    ["sha256 of the weights"],
    ["download", "why"],
  ];
  rows(
    $("checkpoints"),
    heads,
    list.map((c) => ({
      cells: [
        [
          element("span", "", c.name),
          c.best ? element("span", "badge best", "best") : "",
          c.final ? element("span", "badge final", "final") : "",
        ],
        whole(c.step),
        fixed(4)(c.valLossNats),
        bytes(c.bytes),
        age(c.ageSeconds),
        element("code", "", c.sha256.slice(0, 16)),
        download(c),
      ],
    })),
  );
}

function facts(list, entries) {
  list.replaceChildren(
    ...entries.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", String(value))]),
  );
}

/** Options that are not at their defaults, the data, and all options. */
export function showAbout({ options, changed, data }) {
  const shown = (value) => (value === "" ? none : value);
  const ofData = [
    ["data", data.name],
    ["tokenizer", `${data.tokenizer}, ${whole(data.vocabulary)} tokens`],
    ["training", `${whole(data.trainTokens)} tokens`],
    ["validation", `${whole(data.validationTokens)} tokens`],
  ];
  facts($("about"), [
    ...ofData,
    ...changed.filter((name) => name !== "data" && name !== "tokenizer").map((name) => [name, shown(options[name])]),
  ]);
  facts(
    $("options"),
    Object.entries(options).map(([name, value]) => [name, shown(value)]),
  );
}

export function showPhases(s) {
  const entries = Object.entries(s.phaseSeconds);
  const total = entries.reduce((sum, [, x]) => sum + x, 0);
  $("stepTime").textContent = `${time(total)} a step`;
  const share = (x) => (total === 0 ? 0 : (100 * x) / total);
  const colored = (name) => `var(--${name}, var(--faint))`;
  const bars = entries.map(([name, x]) => {
    const bar = element("div");
    bar.style.width = `${share(x)}%`;
    bar.style.background = colored(name);
    bar.title = name;
    return bar;
  });
  $("stack").replaceChildren(...bars.filter((_, i) => entries[i][1] > 0));
  $("parts").replaceChildren(
    ...entries.map(([name, x]) => {
      const dot = element("i");
      dot.style.background = colored(name);
      return element("div", "", dot, name, element("b", "", time(x)), element("span", "", `${share(x).toFixed(0)} %`));
    }),
  );
}

/** @param redraw shows the last status again */
export function startTables(redraw) {
  for (const what of ["workers", "events"])
    $(`${what}More`).addEventListener("click", () => {
      all[what] = !all[what];
      redraw();
    });
}
