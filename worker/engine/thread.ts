// The thread's side of threaded.ts: a tfjs engine that answers calls one after another.
import { parentPort, workerData } from "node:worker_threads";
import { EngineError, messageOf, UnfitError } from "../../shared/errors.ts";
import type { Engine, EngineOptions, Generation } from "./contract.ts";
import { tfjs } from "./tfjs/kind.ts";

/** A call: a method of the engine, or with `generation` of that generation. */
export interface Call {
  readonly id: number;
  readonly generation?: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

export interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: {
    readonly name: string;
    readonly message: string;
    readonly stack: string;
    readonly isUnfit: boolean;
  };
}

/** What the other side knows of the engine; the answer to its creation. */
export type Facts = Pick<Engine, "name" | "arithmetic" | "device" | "model" | "plannedBytes">;

const port = parentPort!;
const generations = new Map<number, Generation>();
let engine: Engine;

async function run({ id, generation, method, args }: Call): Promise<unknown> {
  if (method === "create") {
    engine = await tfjs.create(workerData as EngineOptions);
    const { name, arithmetic, device, model, plannedBytes } = engine;
    return { name, arithmetic, device, model, plannedBytes } satisfies Facts;
  }
  if (method === "generation") {
    generations.set(id, await engine.generation(args[0] as number));
    return id;
  }
  const target = generation === undefined ? engine : generations.get(generation);
  if (!target) throw new EngineError("generation: it was disposed");
  const result = await (target as unknown as Record<string, (...args: unknown[]) => unknown>)[method]!(...args);
  if (generation !== undefined && method === "dispose") generations.delete(generation);
  // A generation goes on writing into the logits that it returned: those are copied, all others handed over.
  return method === "feed" ? (result as Float32Array).slice() : result;
}

// Calls are answered in the order in which they came, also those whose sender does not wait.
let last: Promise<void> = Promise.resolve();
port.on("message", (call: Call) => {
  last = last.then(async () => {
    try {
      const value = await run(call);
      port.postMessage(
        { id: call.id, value } satisfies Answer,
        value instanceof Float32Array ? [value.buffer as ArrayBuffer] : [],
      );
    } catch (error) {
      const { name, stack = "" } = error as Error;
      port.postMessage({
        id: call.id,
        error: { name, message: messageOf(error), stack, isUnfit: error instanceof UnfitError },
      } satisfies Answer);
    }
  });
});
