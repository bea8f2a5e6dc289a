// `weft doctor`: what this machine can do, what is missing and how to get it, in one screen; with a coordinator also
// the link to it, and which way of training over it to take.

import { Command } from "commander";
import { tokenToShow } from "../coordinator/serve/access.ts";
import { modelOf, type Options, threadsEach } from "../shared/config.ts";
import { ConfigError, EngineError } from "../shared/errors.ts";
import { initialWeights } from "../shared/family/init.ts";
import { layoutOf } from "../shared/family/layout.ts";
import type { ModelConfig } from "../shared/model.ts";
import { defaultPreset } from "../shared/presets.ts";
import { resolveOptions } from "../shared/resolve.ts";
import { protocolVersion } from "../shared/wire/protocol.ts";
import { openEngine } from "../worker/engine/choose.ts";
import { shardGradient } from "../worker/engine/shards.ts";
import { type Advice, adviceText, advise } from "./advice.ts";
import { type LinkReport, testLink } from "./doctor-link.ts";
import { examine, type Finding } from "./doctor-machine.ts";
import { measureHandling } from "./handling.ts";
import { addOptions, type Own, sourcesOf } from "./options.ts";
import { Remote } from "./remote.ts";
import { printable } from "./terminal.ts";

/** What the engine does with one preset here. */
export interface Speed {
  readonly preset: string;
  readonly parameters: number;
  readonly tokensPerStep: number;
  readonly device: string;
  readonly arithmetic: string;
  readonly why: string;
  readonly tokensPerSec: number;
}

export interface Report {
  readonly findings: readonly Finding[];
  /** Or the reason why no engine computes this preset here. */
  readonly speed: Speed | string;
  /** Or the reason why it could not be tested. */
  readonly link?: LinkReport | string;
  readonly advice?: Advice;
}

const vocabularyOf = { char: 65, gpt2: 50_257 };
/** Steps are repeated for so long, on at most so many tokens at once: more of them are not faster. */
const measureSeconds = 2;
const mostTokens = 2048;

/**
 * Gradients of a shard, again and again.
 * @param nowMs of the time that counts
 * @throws EngineError where no engine can
 */
export async function measureSpeed(
  options: Options,
  model: ModelConfig,
  threads: number,
  nowMs: () => number = () => performance.now(),
): Promise<Omit<Speed, "preset">> {
  const rows = Math.max(1, Math.min(options.batchSize / options.shards, Math.floor(mostTokens / model.blockSize)));
  const { engine, why } = await openEngine("auto", {
    model,
    maxRows: rows,
    precision: "float32",
    threads,
    device: "auto",
  });
  try {
    const layout = layoutOf(model);
    await engine.setWeights(initialWeights(layout, options.seed));
    const tokens = new Int32Array(rows * model.blockSize).map((_, i) => i % model.vocabSize);
    const out = new Float32Array(layout.size);
    const secondsOf = async (step: number): Promise<number> => {
      const start = nowMs();
      await shardGradient(engine, tokens, tokens, rows, { seed: 1, step, shard: 0 }, out);
      return (nowMs() - start) / 1000;
    };
    // The first call also compiles and allocates; it counts only where it leaves no time for another.
    let steps = 1;
    let seconds = await secondsOf(0);
    if (seconds < measureSeconds) {
      seconds = 0;
      for (steps = 0; seconds < measureSeconds; steps++) seconds += await secondsOf(steps);
    }
    return {
      parameters: layout.size,
      tokensPerStep: options.batchSize * model.blockSize,
      device: engine.device,
      arithmetic: engine.arithmetic,
      why,
      tokensPerSec: (steps * tokens.length) / seconds,
    };
  } finally {
    await engine.dispose();
  }
}

export async function diagnose(about: {
  /** Of the run that would be timed, and what they are called. */
  options: Options;
  preset: string;
  port: number;
  coordinator?: string | undefined;
  token?: string | undefined;
  /** Like this machine, on the link to the coordinator. */
  workers: number;
}): Promise<Report> {
  const { options, preset, coordinator, workers } = about;
  const model = modelOf(options, options.tokenizer === "gpt2" ? vocabularyOf.gpt2 : vocabularyOf.char);
  const remote = coordinator === undefined ? undefined : new Remote(coordinator, about.token);
  const { findings } = await examine(about.port);
  const link =
    remote &&
    (await testLink(remote).catch((error) => {
      if (error instanceof ConfigError) return error.message;
      throw error;
    }));
  const threads = threadsEach(1);
  const speed = await measureSpeed(options, model, threads).then(
    (measured) => ({ preset, ...measured }),
    (error) => {
      if (error instanceof EngineError) return error.message;
      throw error;
    },
  );
  if (typeof speed === "string" || link === undefined || typeof link === "string")
    return { findings, speed, ...(link && { link }) };
  const { parameters, tokensPerSec } = speed;
  const measured = { link, handling: measureHandling(threads), workers, tokensPerSec, atOnce: workers };
  return { findings, speed, link, advice: advise({ options, model, parameters }, measured) };
}

const columns = 80;
const marks = { good: "ok", absent: "--", bad: "!!" };
const short = (x: number): string => (x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));

/** One screen. */
export function printed({ findings, speed, link, advice }: Report): string {
  const lines = findings.map(({ what, state, says }) => row(marks[state], what, says));
  if (typeof speed === "string") lines.push(row(marks.bad, "engine", speed));
  else {
    lines.push(row(marks.good, "engine", `${speed.arithmetic} on ${speed.device}: ${speed.why}`));
    const model = `${speed.parameters.toLocaleString("en")} parameters`;
    lines.push(row(marks.good, "speed", `${short(speed.tokensPerSec)} tokens/s with ${speed.preset} (${model})`));
  }
  if (typeof link === "string") lines.push(row(marks.bad, "link", link));
  else if (link) {
    const fits = link.arithmetic === null || typeof speed === "string" || link.arithmetic === speed.arithmetic;
    const speaks = link.protocol === String(protocolVersion);
    const run = `${link.run}, weft ${link.weft}, protocol ${link.protocol}`;
    const cure = speaks ? "" : `; this machine speaks protocol ${protocolVersion}: install the same version on both`;
    lines.push(row(speaks ? marks.good : marks.bad, "coordinator", `${run}${cure}`));
    if (!fits)
      lines.push(
        row(marks.bad, "arithmetic", `the run computes with ${link.arithmetic}; workers of one run must agree`),
      );
    const mbps = `${short(link.downMBps)} MB/s from it, ${short(link.upMBps)} MB/s to it`;
    lines.push(row(marks.good, "link", `round trip ${short(link.roundTripMs)} ms, ${mbps}`));
  }
  if (advice) lines.push("", adviceText(advice));
  return `${lines.join("\n")}\n`;
}

/** On lines of at most 80 columns, but for words that are longer. */
function row(mark: string, what: string, says: string): string {
  const head = `${mark}  ${what.padEnd(14)}`;
  const lines = [head];
  for (const word of says.split(" ")) {
    if (lines.at(-1)!.length + word.length >= columns && lines.at(-1)!.length > head.length)
      lines.push(" ".repeat(head.length));
    lines.push(`${lines.pop()} ${word}`);
  }
  return lines.join("\n");
}

const own = {
  coordinator: { default: [], help: "also test the link to this coordinator, ws:// or http://" },
  workers: { default: 4, help: "with --coordinator: workers like this machine that are on its link" },
  port: { help: "port to look at" },
  tokenFile: {},
  json: {},
} satisfies Own;

export function doctorCommand(): Command {
  const command = new Command("doctor").description(
    "what this machine can do, what is missing, and how fast it would be",
  );
  command.option("--preset <NAME>", `model to measure [default: ${defaultPreset}]`);
  addOptions(command, [], own);
  return command.action(async () => {
    const sources = { ...(await sourcesOf(command, own)), impliedPreset: defaultPreset };
    const { options, origins, preset = "the model of --config" } = resolveOptions(sources);
    const { port, workers, tokenFile, json } = options;
    const [coordinator, ...others] = options.coordinator;
    if (others.length > 0)
      throw new ConfigError(
        `doctor: --coordinator may be given once, not also ${others.join(", ")}: it is one link that is measured`,
      );
    if (coordinator === undefined && origins.workers === "flag")
      throw new ConfigError("doctor: --workers is of those on the link to a --coordinator; name one, or leave it out");
    const token = await tokenToShow(tokenFile, process.env);
    const report = await diagnose({ options, preset, coordinator, port, token, workers });
    process.stdout.write(printable(json ? `${JSON.stringify(report, null, 2)}\n` : printed(report)));
    const isBroken = typeof report.speed === "string" || typeof report.link === "string";
    if (isBroken || report.findings.some(({ state }) => state === "bad")) process.exitCode = 1;
  });
}
