// The contract suite over every engine that is usable here.
import { test } from "vitest";
import { nativeAddon, nativeStatus } from "../../../shared/arithmetic/native.ts";
import type { EngineOptions } from "../../../worker/engine/contract.ts";
import { native } from "../../../worker/engine/native/engine.ts";
import { tfjs } from "../../../worker/engine/tfjs/kind.ts";
import { engineContract } from "./engine.contract.ts";

engineContract("tfjs wasm", (options) => tfjs.create({ ...options, backend: "wasm" }));

// Every instruction set of this machine; where the addon is not built a laptop skips and CI fails.
const sets = (nativeAddon()?.instructionSets() ?? []) as NonNullable<EngineOptions["isa"]>[];
for (const isa of sets) engineContract(`native ${isa}`, (options) => native.create({ ...options, isa }));
const { built, why } = nativeStatus();
if (!built)
  test.skipIf(!process.env.CI)(`engine native (skipped: ${why})`, () => {
    throw new Error(why);
  });
