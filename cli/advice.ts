// Which way to train over a link: how fast each topology, number of local steps and wire would be by the model of a step,
// and the one that keeps the most of the loss while it is nearly as fast as any.

import { vectorsSent } from "../coordinator/memory.ts";
import { codecOf, type WireFormat, wireFormats } from "../shared/arithmetic/codec.ts";
import { bestCodec } from "../shared/arithmetic/native.ts";
import { flagsFor, type Options } from "../shared/config.ts";
import type { ModelConfig } from "../shared/model.ts";
import { widthOf } from "../shared/token-array.ts";
import type { LinkReport } from "./doctor-link.ts";
import { type Handling, handlingOf } from "./handling.ts";
import { lossOf } from "./local-steps-loss.ts";
import { type Means, type StepTime, type StepWork, stepTime, type Topology, topologies } from "./step-model.ts";

/** A way to train. */
export interface Way {
  readonly topology: Topology;
  readonly localSteps: number;
  readonly wire: WireFormat;
}

export interface Predicted extends Way, StepTime {}

export interface Advice {
  readonly workers: number;
  readonly ways: readonly Predicted[];
  /** The one to take, and what its coordinator is told beside the options that were asked for. */
  readonly take: Predicted;
  readonly flags: readonly string[];
  readonly loss: string;
}

export const localStepsOffered = [1, 5, 20, 50, 100];
/** What is nearly as fast as the fastest. */
const nearly = 0.8;

/** The run that would be timed: its options are those of the run but for the way. */
export interface Planned {
  readonly options: Pick<Options, "batchSize" | "blockSize" | "shards" | "replicas" | "innerState">;
  readonly model: ModelConfig;
  readonly parameters: number;
}

export type Measured = Pick<Means, "workers" | "tokensPerSec" | "atOnce"> & {
  readonly link: Pick<LinkReport, "roundTripMs" | "downMBps" | "upMBps">;
  readonly handling: Handling;
};

/** As many as were asked for, or as the shards allow. */
const replicasOf = ({ replicas, shards }: Planned["options"]): number => Math.min(replicas, shards);

export function predict({ options, model, parameters }: Planned, measured: Measured, way: Way): Predicted {
  const { topology, localSteps, wire } = way;
  const { link, handling, ...means } = measured;
  const vectors = vectorsSent({ ...options, localSteps });
  const work: StepWork = {
    ...{ topology, localSteps },
    units: localSteps > 1 ? replicasOf(options) : options.shards,
    tokensPerStep: options.batchSize * options.blockSize,
    vectorBytes: codecOf(wire, vectors, parameters, bestCodec).bytes(vectors * parameters),
    windowBytes: options.batchSize * (options.blockSize + 1) * widthOf(model.vocabSize),
  };
  const time = stepTime(work, {
    ...means,
    roundTripSeconds: link.roundTripMs / 1000,
    downBytesPerSec: 1e6 * link.downMBps,
    upBytesPerSec: 1e6 * link.upMBps,
    ...handlingOf(handling, wire, vectors, parameters),
  });
  return { ...way, ...time };
}

/** Ways in the order of what they cost: fewer local steps, then more bits, then no relay. */
export function advise(planned: Planned, measured: Measured): Advice {
  const ways = localStepsOffered.flatMap((localSteps) =>
    wireFormats.flatMap((wire) =>
      topologies.map((topology) => predict(planned, measured, { topology, localSteps, wire })),
    ),
  );
  const fastest = Math.max(...ways.map(({ tokensPerSec }) => tokensPerSec));
  const take = ways.find(({ tokensPerSec }) => tokensPerSec >= nearly * fastest)!;
  const replicas = replicasOf(planned.options);
  const isLocal = take.localSteps > 1;
  const flags = flagsFor({
    ...(isLocal && { localSteps: take.localSteps }),
    ...(isLocal && replicas !== planned.options.replicas && { replicas }),
    ...(take.wire !== "float32" && { wire: take.wire }),
  });
  const loss = lossOf({ ...take, replicas: isLocal ? replicas : 1 });
  return { workers: measured.workers, ways, take, flags, loss };
}

const speedText = (x: number): string => (x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(2));

/** A table of tokens a second and what to take, within 80 columns. */
export function adviceText({ workers, ways, take, flags, loss }: Advice): string {
  const width = 9;
  const cells = (texts: readonly string[]) => texts.map((text) => text.padStart(width)).join("");
  const of = (localSteps: number, topology: Topology) =>
    ways.filter((way) => way.localSteps === localSteps && way.topology === topology);
  const sections = topologies.flatMap((topology) => [
    `  ${topology.padEnd(5)} H${cells(wireFormats)}`,
    ...localStepsOffered.map(
      (H) => `${String(H).padStart(9)}${cells(of(H, topology).map((way) => speedText(way.tokensPerSec)))}`,
    ),
  ]);
  const who = workers === 1 ? "one worker like this machine" : `${workers} workers like this machine`;
  const coordinator = flags.length > 0 ? flags.join(" ") : "the options as they are";
  const relay = take.topology === "relay" ? ", workers behind a weft relay" : "";
  const percent = Math.round(100 * take.utilisation);
  return [
    `tokens/s to expect of ${who}, by wire and local steps H:`,
    ...sections,
    `take ${coordinator}${relay}:`,
    `  ${speedText(take.tokensPerSec)} tokens/s; workers compute ${percent}% of the time;`,
    `  costs ${loss} (docs/local-steps.md)`,
  ].join("\n");
}
