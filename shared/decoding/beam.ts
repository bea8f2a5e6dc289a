// Beam search: the continuation of the highest total log-probability that a search of fixed width finds, with the
// length penalty of Wu et al. 2016 in Hugging Face's form (score = sum / length ^ penalty).
import { Continuations, type Decodable, largest, penalise } from "./decode.ts";

export interface BeamOptions {
  /** Continuations kept at every step. */
  readonly beams: number;
  readonly tokens: number;
  /** 0 compares plain sums; 1 means per token; above favours long ones. Matters only where some finish early. */
  readonly lengthPenalty: number;
  readonly repetitionPenalty: number;
  /** Is this continuation (prompt excluded) complete, whatever its length? */
  readonly finished: (continuation: readonly number[]) => boolean;
  /** Is there a token of this id? Others are never taken. Default: all. */
  readonly has?: (id: number) => boolean;
}

export interface Hypothesis {
  /** Prompt excluded. */
  readonly tokens: readonly number[];
  /** Sum of the tokens' log-probabilities in nats. */
  readonly logProb: number;
  readonly score: number;
}

/** One way to go on: beam `from` with `token`. */
interface Candidate {
  readonly from: number;
  readonly token: number;
  readonly logProb: number;
}

/**
 * The best continuations, best first: at most `beams`, fewer where the vocabulary is smaller. The search ends after
 * `tokens`, or once `beams` hypotheses are finished.
 */
export async function beamSearch(engine: Decodable, prompt: Int32Array, options: BeamOptions): Promise<Hypothesis[]> {
  const { beams, tokens, finished } = options;
  const done: Hypothesis[] = [];
  let live = [0];
  const rows = await Continuations.start(engine, prompt, beams, options.has);
  try {
    for (let count = 0; count < tokens && live.length > 0; count++) {
      if (count > 0) await rows.compute(live.keys());
      const chosen: Candidate[] = [];
      // Twice the width, so that finished ones leave enough to go on with.
      for (const [rank, candidate] of best(rows, live, options.repetitionPenalty, 2 * beams).entries()) {
        const continuation = [...rows.continuation(candidate.from), candidate.token];
        if (!finished(continuation)) chosen.push(candidate);
        else if (rank < beams) done.push(hypothesis(continuation, candidate.logProb, options));
        if (chosen.length === beams) break;
      }
      await rows.reorder(Array.from({ length: beams }, (_, i) => chosen[i]?.from ?? 0));
      for (const [i, { token }] of chosen.entries()) rows.append(i, token);
      live = chosen.map(({ logProb }) => logProb);
      if (done.length >= beams) break;
    }
    if (done.length < beams)
      for (const [i, logProb] of live.entries()) done.push(hypothesis(rows.continuation(i), logProb, options));
  } finally {
    rows.dispose();
  }
  return done.sort((a, b) => b.score - a.score).slice(0, beams);
}

function hypothesis(tokens: readonly number[], logProb: number, { lengthPenalty }: BeamOptions): Hypothesis {
  return { tokens, logProb, score: logProb / tokens.length ** lengthPenalty };
}

/** The `count` likeliest candidates, best first; of equal ones the lower beam, then the lower token. */
function best(rows: Continuations, live: readonly number[], penalty: number, count: number): Candidate[] {
  const all: Candidate[] = [];
  for (const [from, sum] of live.entries()) {
    const logits = rows.logits(from);
    penalise(logits, rows.sequence(from), penalty);
    const normaliser = logSumExp(logits);
    // No beam can give more than `count` of the best.
    const least = largest(logits.slice(), Math.min(count, logits.length)).at(-1)!;
    for (const [token, logit] of logits.entries())
      if (logit >= least && logit !== Number.NEGATIVE_INFINITY)
        all.push({ from, token, logProb: sum + logit - normaliser });
  }
  return all.sort((a, b) => b.logProb - a.logProb || a.from - b.from || a.token - b.token).slice(0, count);
}

function logSumExp(x: Float32Array): number {
  const highest = x.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (const value of x) sum += Math.exp(value - highest);
  return highest + Math.log(sum);
}
