// What is known of the tfjs engine without TensorFlow.js, which is loaded where an engine is opened.
import type { EngineKind } from "../contract.ts";
import { chooseBackend, openBackend } from "./choose.ts";
import { plannedBytes } from "./plan.ts";

export const tfjs: EngineKind = {
  name: "tfjs",
  async probe(options) {
    const { kind, ...reason } = await chooseBackend(options);
    return { usable: kind !== undefined, ...reason };
  },
  async planned(options) {
    const { kind } = await chooseBackend(options);
    if (!kind || kind.gpu) return undefined;
    const { model, maxRows, checkpointActivations = false } = options;
    // What a backend's products take on top is known when it is open.
    const bytes = plannedBytes(model, maxRows, checkpointActivations, () => 0);
    return { bytes, addressableBytes: kind.addressableBytes };
  },
  async create(options) {
    const [backend, { TfjsEngine }] = await Promise.all([openBackend(options), import("./engine.ts")]);
    return new TfjsEngine(options, backend);
  },
};
