// Which engine computes here: the one asked for by name, or the fastest that is usable, and why.
import { UnfitError } from "../../shared/errors.ts";
import type { Engine, EngineKind, EngineOptions, Probed } from "./contract.ts";
import { native } from "./native/engine.ts";
import { threadedTfjs } from "./threaded.ts";
import { xla } from "./xla/kind.ts";

export const engineNames = ["auto", "native", "xla", "tfjs"] as const;
export type EngineName = (typeof engineNames)[number];

/** Every kind of engine, the fastest on a CPU first. */
const kinds: readonly EngineKind[] = [native, xla, threadedTfjs];

/**
 * Open an engine.
 * `auto` takes a usable GPU first and then the fastest CPU engine; a backend or instruction set asked for by name
 * restricts it to the engine that has it.
 * @returns the engine, and a sentence that says which it is and why
 * @throws UnfitError with the cure where nothing that was asked for is usable or what it plans does not fit
 * @throws EngineError when it cannot start
 */
export async function openEngine(
  name: EngineName,
  options: EngineOptions,
  from: readonly EngineKind[] = kinds,
): Promise<{ engine: Engine; why: string }> {
  const { kind, asked, why } = await chooseEngine(name, options, from);
  return { engine: await kind.create(asked), why };
}

/**
 * What openEngine would take, not opened yet.
 * @throws UnfitError with the cure where nothing that was asked for is usable
 */
export async function chooseEngine(
  name: EngineName,
  options: EngineOptions,
  from: readonly EngineKind[] = kinds,
): Promise<{ kind: EngineKind; asked: EngineOptions; why: string }> {
  const reasons: (Probed & { device: EngineOptions["device"] })[] = [];
  for (const { kind, device } of candidates(name, options, from)) {
    const asked = { ...options, device };
    const probed = await kind.probe(asked);
    if (probed.usable) {
      // What else this device could have run is news; that a machine has no GPU when none was asked for is not.
      const passedOver = reasons
        .filter((reason) => reason.device === device || reason.isMissed)
        .map((reason) => `not ${reason.why}`);
      return { kind, asked, why: [...passedOver, probed.why].join("; ") };
    }
    reasons.push({ device, ...probed });
  }
  throw new UnfitError(
    `no usable engine${name === "auto" ? "" : ` "${name}"`} for device ${options.device}: ` +
      ([...new Set(reasons.map(({ why }) => why))].join("; ") ||
        "--backend belongs to the tfjs engine, --isa to native: neither goes with the other, nor with the other engine"),
  );
}

/** Which kinds to try, in order, and on which device. */
function candidates(
  name: EngineName,
  { device, backend = "auto", isa = "auto" }: EngineOptions,
  from: readonly EngineKind[],
): { kind: EngineKind; device: EngineOptions["device"] }[] {
  const allowed = from.filter(
    (kind) =>
      (name === "auto" || kind.name === name) &&
      (backend === "auto" || kind.name === "tfjs") &&
      (isa === "auto" || kind.name === "native"),
  );
  const devices = device === "auto" && name === "auto" && backend === "auto" ? (["gpu", "cpu"] as const) : [device];
  const pairs = devices.flatMap((each) => allowed.map((kind) => ({ kind, device: each })));
  // On a CPU the xla engine is an oracle: only by name.
  return pairs.filter(({ kind, device: on }) => name !== "auto" || kind.name !== "xla" || on === "gpu");
}
