// `weft status`: how a run stands, asked of its coordinator.
import { Command } from "commander";
import { tokenToShow } from "../coordinator/serve/access.ts";
import { healthOf, type RunStatus, statusSchema } from "../coordinator/status.ts";
import { ConfigError, Interrupted } from "../shared/errors.ts";
import { durationText } from "./duration.ts";
import { addOptions, type Own, optionsOf } from "./options.ts";
import { Remote } from "./remote.ts";
import { onOneLine, tell } from "./terminal.ts";

const own = {
  from: { default: "http://127.0.0.1:7070", help: "coordinator, http:// or ws://" },
  tokenFile: {},
  json: {},
} satisfies Own;

export function statusCommand(): Command {
  const command = new Command("status").description("how a run stands: progress, losses, workers, checkpoints");
  addOptions(command, [], own);
  return command.action(async () => {
    const { from, tokenFile, json } = await optionsOf(command, own);
    const remote = new Remote(from, await tokenToShow(tokenFile, process.env));
    const status = await remote.json("/status", statusSchema).catch((error) => {
      if (!(error instanceof Interrupted)) throw error;
      throw new ConfigError(`${error.message}; is the coordinator running, and is this its address?`, { cause: error });
    });
    tell(json ? JSON.stringify(status, null, 2) : linesOf(status).map(onOneLine).join("\n"));
    if (!healthOf(status).healthy) process.exitCode = 1;
  });
}

const number = (value: number | null, digits = 4): string => (value === null ? "-" : value.toFixed(digits));
const percent = (value: number | null): string => (value === null ? "-" : `${Math.round(100 * value)}%`);
const count = (value: number | null): string => (value === null ? "-" : Math.round(value).toLocaleString("en"));

function linesOf(status: RunStatus): string[] {
  const { run, model, step, steps, state, etaSeconds, workers, checkpoints } = status;
  const left = state === "finished" || etaSeconds === null ? "" : `, ${durationText(etaSeconds)} left`;
  const newest = checkpoints[0];
  const trouble = status.checkpointTrouble === null ? "" : `; the next is not written: ${status.checkpointTrouble}`;
  return [
    `run          ${run.name}, ${model.summary}, ${count(model.parameters)} parameters`,
    `state        ${healthOf(status).why}`,
    `progress     step ${step} of ${steps}, ${count(status.tokens)} tokens, ${count(status.tokensPerSec)} tokens/s${left}`,
    `loss         training ${number(status.lossNats)}, validation ${number(status.valLossNats)}, best ${number(status.bestValLossNats)}`,
    `checkpoint   ${newest ? `${newest.name}, ${durationText(newest.ageSeconds)} ago` : "none yet"}${trouble}`,
    ...status.samples.slice(-1).map(({ step: at, text }) => `sample       after step ${at}: ${text}`),
    `workers      ${workers.length}`,
    ...workers.map(
      ({ id, state, device, tokensPerSec, utilisation }) =>
        `  ${id}: ${state}, ${device}, ${count(tokensPerSec)} tokens/s, computes ${percent(utilisation)} of the time`,
    ),
  ];
}
