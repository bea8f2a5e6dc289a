// An engine that computes wrongly on purpose, and plausibly: what `weft chaos` sends among a run's workers, and what the
// tests hold --verify against.
import { Command, Option } from "commander";
import { resolveOptions } from "../shared/resolve.ts";
import type { Engine } from "../worker/engine/contract.ts";
import { thisWorld, work } from "../worker/worker.ts";
import { createLog } from "./log.ts";
import { flagAndHelp } from "./options.ts";

/** A gradient of zeros, of small random values, with one sign turned; half the validation loss; one sign one time in fifty. */
export const lies = ["zeros", "random", "sign", "validation", "rarely"] as const;
export type Lie = (typeof lies)[number];

export interface Lying {
  readonly kind: Lie;
  /** In [0, 1). */
  readonly random: () => number;
  /** Does it lie by now, or is it honest still? */
  readonly begins?: (() => boolean) | undefined;
  /** Hears of every answer that is wrong. */
  readonly onLie?: (() => void) | undefined;
}

export function lyingEngine(engine: Engine, lying: Lying): Engine {
  const { kind, random, begins = () => true, onLie = () => {} } = lying;
  const gradient: Engine["gradient"] = async (...call) => {
    const losses = await engine.gradient(...call);
    if (losses && begins() && falsify(call[4], kind, random)) onLie();
    return losses;
  };
  const losses: Engine["losses"] = async (...call) => {
    const values = await engine.losses(...call);
    if (kind !== "validation" || !begins()) return values;
    onLie();
    return values.map((loss) => loss / 2);
  };
  return new Proxy(engine, {
    get(target, key) {
      if (key === "gradient") return gradient;
      if (key === "losses") return losses;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** @returns whether anything is other than before */
function falsify(gradient: Float32Array, kind: Lie, random: () => number): boolean {
  if (kind === "validation" || (kind === "rarely" && random() >= 1 / 50)) return false;
  const at = gradient.findIndex((value) => value !== 0);
  if (at < 0) return false;
  if (kind === "zeros") gradient.fill(0);
  else if (kind === "random") for (let i = 0; i < gradient.length; i++) gradient[i] = (random() - 0.5) / 100;
  else gradient[at] = -gradient[at]!;
  return true;
}

/** A worker of a run of one's own that lies: part of `weft chaos`. */
export function liarCommand(): Command {
  return new Command("liar")
    .requiredOption(...flagAndHelp("coordinator", "run to lie to"))
    .requiredOption(...flagAndHelp("name"))
    .addOption(new Option("--lie <KIND>", "what it does").choices(lies).makeOptionMandatory())
    .action(async (flags: { coordinator: string; name: string; lie: Lie }) => {
      const { options } = resolveOptions({ flags: { coordinator: [flags.coordinator], patience: 600 } });
      const { log } = createLog("worker");
      const settings = { options, threads: 1, name: flags.name, token: undefined, log };
      await work(
        { ...settings, leave: new AbortController().signal },
        {
          ...thisWorld,
          openEngine: async (...call) => {
            const opened = await thisWorld.openEngine(...call);
            return { ...opened, engine: lyingEngine(opened.engine, { kind: flags.lie, random: Math.random }) };
          },
        },
      );
    });
}
