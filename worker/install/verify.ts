// Does the addon that was just compiled run? First its symbols against those of the libraries, so that a missing one
// is named, then a small product in a process of its own, so that a crash is an answer and not our end.
import { EngineError } from "../../shared/errors.ts";
import { run } from "./tools.ts";

/** The TF_* and TFE_* functions that `addon` calls and none of `libraries` exports. */
export async function missingSymbols(addon: string, libraries: readonly string[]): Promise<string[]> {
  const called = await symbols("--undefined-only", addon);
  const exported = new Set(await symbols("--defined-only", ...libraries));
  return called.filter((name) => !exported.has(name));
}

/** TensorFlow's C functions in nm's listing, without their version ("TF_Version@@tensorflow"). */
async function symbols(which: string, ...files: string[]): Promise<string[]> {
  const { status, stdout, stderr } = await run(["nm"], ["-D", which, ...files]);
  if (status !== 0) throw new EngineError(`nm could not read ${files.join(", ")}: ${stderr.trim()}`);
  return [...stdout.matchAll(/ [TUW] (TFE?_\w+)/g)].map(([, name]) => name);
}

const PRODUCT = `
  const tf = require(process.argv[1]);
  const flag = (name) => ({ name, type: tf.TF_ATTR_BOOL, value: false });
  const attributes = [flag("transpose_a"), flag("transpose_b"), { name: "T", type: tf.TF_ATTR_TYPE, value: tf.TF_FLOAT }];
  const a = tf.createTensor([2, 2], tf.TF_FLOAT, Float32Array.of(1, 2, 3, 4));
  const [product] = tf.executeOp("MatMul", attributes, [a, a], 1);
  process.stdout.write(JSON.stringify([tf.TF_Version, tf.isUsingGpuDevice(), ...tf.tensorDataSync(product.id)]));
`;

/**
 * Load the addon in a process of its own and multiply two matrices on the device it takes.
 * @returns whether that device is a GPU, and what TensorFlow logged
 * @throws EngineError with the loader's words, the signal, or the wrong numbers
 */
export async function tryAddon(addon: string, version?: string): Promise<{ gpu: boolean; log: string }> {
  const { status, stdout, stderr } = await run([process.execPath], ["-e", PRODUCT, addon]);
  if (status === "SIGILL") throw new EngineError("TensorFlow uses instructions that this CPU lacks (it needs AVX)");
  if (status !== 0) {
    const said = stderr.split("\n").find((line) => /error/i.test(line)) ?? stderr.trim();
    throw new EngineError(`TensorFlow's addon does not run here (status ${status}): ${said}`);
  }
  const [found, gpu, ...product] = JSON.parse(stdout) as [string, boolean, ...number[]];
  if (product.join() !== "7,10,15,22") throw new EngineError(`TensorFlow computed ${product}, not 7,10,15,22`);
  if (version && found !== version) throw new EngineError(`TensorFlow says it is ${found}, not ${version}`);
  return { gpu, log: stderr };
}
