// The page of a run: asks its coordinator every second and shows what it says. Addresses are relative to the page's own.
import { compareWith, showCurves, startCharts } from "./charts.js";
import { $, bytes, element, fixed, none, rate, short, time, whole } from "./format.js";
import {
  showAbout,
  showCheckpoints,
  showEvents,
  showPhases,
  showQuarantine,
  showSamples,
  showWorkers,
  startTables,
} from "./tables.js";

const tiles = [
  ["lossNats", "Loss", fixed(4), (s) => (s.lossNats === null ? "" : `perplexity ${Math.exp(s.lossNats).toFixed(2)}`)],
  ["valLossNats", "Validation loss", fixed(4), (s) => `best ${fixed(4)(s.bestValLossNats)}`],
  [
    "tokensPerSec",
    "Tokens / s",
    whole,
    (s) =>
      s.state === "finished"
        ? "at the end"
        : `of ${s.workers.filter((w) => w.state === "contributing").length} contributing`,
  ],
  ["stepSeconds", "Step", time, (s) => `${short(s.tokensPerStep)} tokens`],
  ["gradientNorm", "Gradient norm", fixed(3), () => "before clipping"],
  ["learningRate", "Learning rate", rate, () => "of the last step"],
  ["tokens", "Tokens", short, (s) => `${short(s.leases.lost)} leases lost`],
].map(([key, label, format, note]) => {
  const value = element("b");
  const below = element("span");
  value.id = key;
  $("tiles").append(element("div", "card tile", element("h2", "", label), value, below));
  return (s) => {
    value.textContent = format(s[key]);
    below.textContent = note(s);
  };
});

function pill(state, text) {
  $("state").className = `pill ${state}`;
  $("state").textContent = text;
}

function notice(text, bad) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
  $("notice").classList.toggle("bad", bad);
}

let last;

function showStatus(s) {
  last = s;
  document.title = `${s.step}/${s.steps} ${fixed(3)(s.lossNats)} · ${s.run.name}`;
  $("runName").textContent = s.run.name;
  $("model").textContent = `${s.model.summary} · ${short(s.model.parameters)} parameters`;
  const stalled = !s.waitingFor && s.state !== "finished" && s.idleSeconds > s.stallAfterSeconds;
  pill(stalled ? "stalled" : s.state, stalled ? "stalled" : s.state);
  notice(
    stalled ? `Nothing was done for ${time(s.idleSeconds)}.` : s.waitingFor ? `Waiting: ${s.waitingFor}` : "",
    stalled,
  );
  $("content").hidden = false;
  $("actions").hidden = ["finished", "stopping"].includes(s.state);
  const percent = (100 * s.step) / s.steps;
  $("step").textContent = `Step ${whole(s.step)} of ${whole(s.steps)}`;
  $("done").style.width = `${percent}%`;
  $("eta").textContent =
    s.state === "finished"
      ? "done"
      : `${percent.toFixed(1)} %${s.etaSeconds === null ? "" : `, ${time(s.etaSeconds)} left`}`;
  for (const show of tiles) show(s);
  showPhases(s);
  showWorkers(s);
  showQuarantine(s.quarantined ?? []);
  showCheckpoints(s.checkpoints, get);
  const facts = [
    `weft ${s.versions.weft}`,
    `protocol ${s.versions.protocol}`,
    `Node ${s.versions.node}`,
    s.arithmetic ?? "no worker yet",
    `started ${new Date(s.run.startedAt).toLocaleString()}`,
    `received ${bytes(s.bytesIn)}, sent ${bytes(s.bytesOut)}`,
  ];
  $("footer").replaceChildren(
    ...facts.map((text) => element("span", "", text)),
    ...(s.weightsDigest ? [element("span", "", "weights ", element("code", "", s.weightsDigest.slice(0, 16)))] : []),
  );
}

async function get(path, init = {}) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10_000), ...init });
  if (answer.ok) return answer.status === 200 ? await answer.json() : undefined;
  const error = new Error((await answer.text()).trim());
  error.status = answer.status;
  throw error;
}

// What this page has of the run: its curves up to a step, its events up to a number.
let curves;
let runId;
let lastEvent = 0;

/** The curves since what is here already, joined to it. */
async function fetchCurves() {
  const steps = curves?.train.step ?? [];
  // The newest step may lie between two kept ones: it is asked for again.
  const after = steps.findLast((step) => step % curves.stride === 0) ?? -1;
  const fresh = await get(curves && after > 0 ? `history?after=${after}` : "history");
  if (!curves || after <= 0 || fresh.stride !== curves.stride) {
    curves = after <= 0 ? fresh : await get("history");
    return;
  }
  for (const part of ["train", "validation"]) {
    const kept = curves[part].step.findIndex((step) => step > after);
    for (const column of Object.keys(curves[part]))
      curves[part][column] = [
        ...(kept < 0 ? curves[part][column] : curves[part][column].slice(0, kept)),
        ...fresh[part][column],
      ];
  }
}

async function poll() {
  try {
    const status = await get("status");
    const anew = status.run.id !== runId;
    if (anew) {
      [curves, lastEvent] = [undefined, 0];
      showAbout(await get("about"));
      await showEarlier();
    }
    const events = await get(`events?after=${lastEvent}`);
    // A run that went back has other curves from there on.
    if (status.step < last?.step || events.some(({ kind }) => kind === "quarantined")) curves = undefined;
    if (!curves || status.step !== last?.step) await fetchCurves();
    runId = status.run.id;
    lastEvent = events.at(-1)?.number ?? lastEvent;
    $("login").hidden = true;
    showStatus(status);
    if (anew || events.length > 0) showEvents(events, anew);
    showSamples(status.samples);
    showCurves(curves);
  } catch (error) {
    if (error.status === 401) {
      $("login").hidden = false;
      pill("waiting", "locked");
      return;
    }
    pill("lost", "no answer");
    notice(`The coordinator does not answer: ${error.message}. The numbers below are the last ones it gave.`, true);
  }
  setTimeout(poll, document.hidden ? 5000 : 1000);
}

/** The runs beside this one, to compare with. */
async function showEarlier() {
  const runs = await get("runs");
  $("compare").hidden = runs.length === 0;
  $("compareList").replaceChildren(
    ...runs.map((run) => {
      const box = element("input");
      box.type = "checkbox";
      box.addEventListener("change", async () => {
        const other = box.checked ? await get(`runs/${encodeURIComponent(run.name)}`) : undefined;
        compareWith(run.name, other);
      });
      const loss = run.bestValLossNats === null ? none : fixed(4)(run.bestValLossNats);
      const about = `step ${whole(run.step)} of ${whole(run.steps)}, best validation loss ${loss}`;
      return element(
        "label",
        "",
        box,
        element("span", "", run.name, element("small", "", about), element("small", "", run.model)),
      );
    }),
  );
}

function say(text) {
  $("said").hidden = text === "";
  $("said").textContent = text;
}

/** A button that asks something of the run. */
function action(id, path, question, done) {
  $(id).addEventListener("click", async () => {
    if (question && !confirm(question)) return;
    $(id).disabled = true;
    try {
      await get(path, { method: "POST" });
      say(done);
    } catch (error) {
      say(`That was not done: ${error.message}`);
    } finally {
      $(id).disabled = false;
    }
  });
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("login", { method: "POST", body: $("token").value }).catch(() => undefined);
  $("loginError").textContent = answer?.ok ? "" : answer ? await answer.text() : "The coordinator does not answer.";
  if (!answer?.ok) return;
  $("token").value = "";
  await poll();
});
$("copyPull").addEventListener("click", async () => {
  const copied = await navigator.clipboard?.writeText($("pull").textContent).then(
    () => true,
    () => false,
  );
  // Where the clipboard is closed to the page (http beyond this machine) the line is selected, to be copied by hand.
  if (!copied) getSelection().selectAllChildren($("pull"));
  $("copyPull").textContent = copied ? "Copied" : "Selected";
  setTimeout(() => {
    $("copyPull").textContent = "Copy";
  }, 2000);
});
action("checkpointNow", "actions/checkpoint", "", "A checkpoint is written after the step in hand.");
action(
  "stopRun",
  "actions/stop",
  "Stop the run? It writes a checkpoint and ends, and so do its workers; --resume goes on with it.",
  "The run stops.",
);
document.addEventListener("click", (event) => {
  if (!$("compare").contains(event.target)) $("compare").open = false;
});
startCharts();
startTables(() => {
  if (last) showStatus(last);
  showEvents([], false);
});
await poll();
