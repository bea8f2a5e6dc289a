// How long an update of the weights takes, from what was measured of its parts: the weights go out to everyone over the
// one link that all share, the units are computed side by side, their sums come back, the weights change. Pure: doctor
// advises by it, and the bench of links draws it beside what it measures. Parts that follow each other are added up.
import { fairShare } from "../coordinator/crew/plan.ts";

/** `relay`: the workers stand behind one relay, with a network of their own that does not limit them. */
export const topologies = ["star", "relay"] as const;
export type Topology = (typeof topologies)[number];

/** Copies that share a link do not all arrive in one moment: of many, as measured (docs/links.svg). */
const overlap = 0.25;

/** What is to be done. */
export interface StepWork {
  readonly topology: Topology;
  /** H of an update: 1, or the local steps of a round. */
  readonly localSteps: number;
  /** Of an update: shards, or replicas. */
  readonly units: number;
  readonly tokensPerStep: number;
  /** Of what travels each way for a worker and an update, as it is encoded. */
  readonly vectorBytes: number;
  /** Of the token windows of a step, over all units. */
  readonly windowBytes: number;
}

/** What there is to do it with. */
export interface Means {
  readonly workers: number;
  /** Of one worker that has its cores to itself. */
  readonly tokensPerSec: number;
  /** Workers that can compute at this speed at once; fewer where they share cores. */
  readonly atOnce: number;
  /** Of the link that all workers share. */
  readonly roundTripSeconds: number;
  readonly downBytesPerSec: number;
  readonly upBytesPerSec: number;
  /** Processor time to encode, check, decode and add what travels, at both ends together. */
  readonly handlingSeconds: number;
  /** Processor time of an optimizer's step over the weights. */
  readonly updateSeconds: number;
}

export interface StepTime {
  readonly computeSeconds: number;
  readonly downSeconds: number;
  readonly upSeconds: number;
  /** Of these two, what goes up while other workers' weights still come down. */
  readonly overlapSeconds: number;
  /** Round trip, handling and the optimizer. */
  readonly otherSeconds: number;
  /** Of a step: an update's over H. */
  readonly stepSeconds: number;
  readonly tokensPerSec: number;
  /** At the coordinator, a step. */
  readonly downBytesPerStep: number;
  readonly upBytesPerStep: number;
  /** Share of the time that a worker computes, over all workers. */
  readonly utilisation: number;
}

export function stepTime(work: StepWork, means: Means): StepTime {
  const { topology, localSteps, units, tokensPerStep, vectorBytes, windowBytes } = work;
  const { workers, handlingSeconds, updateSeconds } = means;
  const each = fairShare({ units, largest: units }, { weight: 1, overhead: 0 }, { total: workers, workers });
  const leases = units / each;
  const busy = Math.min(workers, leases);
  // Units that the last of them to be done computes, one after another.
  const inTurn = each * Math.ceil(leases / workers);
  const slower = (computing: number) => Math.max(1, computing / means.atOnce);

  const unitSeconds = (localSteps * tokensPerStep) / units / means.tokensPerSec;
  const innerSeconds = localSteps > 1 ? localSteps * updateSeconds : 0;
  const computeSeconds = inTurn * (unitSeconds + innerSeconds) * slower(busy);

  const [copies, sums] = topology === "relay" ? [1, 1] : [workers, leases];
  const downBytes = copies * vectorBytes + localSteps * windowBytes;
  const upBytes = sums * vectorBytes;
  const downSeconds = downBytes / means.downBytesPerSec;
  const upSeconds = upBytes / means.upBytesPerSec;
  const overlapSeconds = overlap * (1 - 1 / copies) * Math.min(downSeconds, upSeconds);
  // Encoded once for all and decoded by each at once; each answer is encoded by its worker, and taken in one by one.
  const atWorkers = 0.5 * handlingSeconds * (slower(workers) + (inTurn / each) * slower(busy));
  const atCoordinator = handlingSeconds * (0.5 + 0.5 * sums);
  const atRelay = topology === "relay" ? handlingSeconds * (1 + 0.5 * (1 + leases)) : 0;
  const otherSeconds = means.roundTripSeconds + atWorkers + atCoordinator + atRelay + updateSeconds;

  const seconds = computeSeconds + downSeconds + upSeconds - overlapSeconds + otherSeconds;
  const stepSeconds = seconds / localSteps;
  return {
    ...{ computeSeconds, downSeconds, upSeconds, overlapSeconds, otherSeconds, stepSeconds },
    tokensPerSec: tokensPerStep / stepSeconds,
    downBytesPerStep: downBytes / localSteps,
    upBytesPerStep: upBytes / localSteps,
    utilisation: (units * (unitSeconds + innerSeconds) * slower(busy)) / (workers * seconds),
  };
}
