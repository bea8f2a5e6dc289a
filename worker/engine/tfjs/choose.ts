// Which tfjs backend computes: the fastest that the options allow and that works here.
import { EngineError } from "../../../shared/errors.ts";
import type { EngineOptions, Probed } from "../contract.ts";
import type { Backend, BackendKind } from "./backend.ts";
import { tensorflow, tensorflowGpu } from "./tensorflow.ts";
import { wasm } from "./wasm/backend.ts";
import { webgpu } from "./webgpu.ts";

/** The fastest first. */
const kinds: readonly BackendKind[] = [tensorflowGpu, webgpu, tensorflow, wasm];

/** The first usable backend that the options allow. `why` names what was passed over and the reason. */
export async function chooseBackend(options: EngineOptions): Promise<{ kind?: BackendKind } & Omit<Probed, "usable">> {
  const asked = options.backend ?? "auto";
  const allowed = kinds.filter(
    (kind) =>
      (asked === "auto" ? !kind.byNameOnly : kind.name === asked) &&
      (options.device === "auto" || (options.device === "gpu") === kind.gpu),
  );
  const reasons: string[] = [];
  let isMissed = false;
  for (const kind of allowed) {
    const { usable, why, isMissed: missed = false } = await kind.probe(options);
    reasons.push(why);
    isMissed ||= missed;
    if (usable) return { kind, why: reasons.join("; ") };
  }
  const known = kinds.map((kind) => `${kind.name} (${kind.gpu ? "gpu" : "cpu"})`).join(", ");
  return {
    isMissed,
    why: reasons.join("; ") || `no tfjs backend ${asked} for device ${options.device}; there are ${known}`,
  };
}

/** @throws EngineError where none that the options allow is usable */
export async function openBackend(options: EngineOptions): Promise<Backend> {
  const { kind, why } = await chooseBackend(options);
  if (!kind) throw new EngineError(`engine tfjs: ${why}`);
  return await kind.open(options);
}
