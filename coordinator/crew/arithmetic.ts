// Which workers compute the same bits, so that any of them may stand in for any other.
import type { Options } from "../../shared/config.ts";

/** What Engine.arithmetic can be: engine, where it runs, precision. */
const known = /^(?:native (?:avx512|avx512bf16|avx2|neon|plain)|tfjs (?:wasm|webgpu|tensorflow)|xla) ?.* ?/;

/** Why a worker of this arithmetic cannot take part, whatever the others compute with; undefined when it can. */
export function whyForeign(
  arithmetic: string,
  options: Pick<Options, "engine" | "isa" | "precision" | "anyArithmetic">,
): string | undefined {
  const words = arithmetic.split(" ");
  if (arithmetic === "any")
    return options.anyArithmetic
      ? undefined
      : "it takes workers of any arithmetic (--any-arithmetic), and this run does not";
  if (!known.test(arithmetic) || !words.includes(options.precision))
    return `"${arithmetic}" is no arithmetic that this coordinator knows for ${options.precision}`;
  if (options.engine !== "auto" && words[0] !== options.engine)
    return `this run was started with --engine ${options.engine}`;
  if (options.isa !== "auto" && words[0] === "native" && words[1] !== options.isa)
    return `this run was started with --isa ${options.isa}`;
  return undefined;
}
