// The engine's part of a run's options.
import type { Options } from "../../shared/config.ts";
import type { ModelConfig } from "../../shared/model.ts";
import type { EngineOptions } from "./contract.ts";

type EngineFlags = Pick<
  Options,
  "precision" | "threads" | "device" | "backend" | "isa" | "memoryLimit" | "checkpointActivations"
>;

/** @param maxRows most sequences of one call */
export function engineOptionsOf(
  options: EngineFlags,
  model: ModelConfig,
  maxRows: number,
  note?: EngineOptions["note"],
): EngineOptions {
  const { precision, threads, device, backend, isa, memoryLimit, checkpointActivations } = options;
  return {
    model,
    maxRows,
    precision,
    threads,
    device,
    backend,
    isa,
    checkpointActivations,
    note,
    ...(memoryLimit > 0 && { memoryLimitBytes: memoryLimit * 2 ** 30 }),
  };
}
