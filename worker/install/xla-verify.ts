// Does a plugin run here? A process of its own opens it and computes, so that a crash is an answer and not our end.
import { ConfigError } from "../../shared/errors.ts";
import { run } from "./tools.ts";
import type { XlaPlugin } from "./xla-plugin.ts";

const SUM = `
  const xla = require(process.argv[1]);
  // CompileOptionsProto: one replica, one partition, any device.
  const options = Uint8Array.of(26, 4, 32, 1, 40, 1, 32, 1);
  const program = "func.func public @main(%0: tensor<2xf32>) -> tensor<2xf32> { %1 = stablehlo.add %0, %0 : tensor<2xf32> return %1 : tensor<2xf32> }";
  (async () => {
    const plugin = await xla.openPlugin(process.argv[2]);
    const { major, minor } = xla.pluginFacts(plugin);
    if (process.argv[3] === "open") return [major, minor];
    const client = await xla.createClient(plugin, {});
    const executable = await xla.compile(client, program, options);
    const [sum] = await xla.execute(executable, [await xla.upload(client, Float32Array.of(1, 2), [2], 0)], 0);
    const out = new Float32Array(2);
    await xla.download(sum, out);
    return [major, minor, ...out];
  })().then((found) => process.stdout.write(JSON.stringify(found)), (error) => { console.error("error: " + error.message); process.exit(1); });
`;

/** @returns a sentence for people. @throws ConfigError with the plugin's words */
export async function tryPlugin({ file, gpu, identity }: XlaPlugin, addon: string): Promise<string> {
  // A plugin for GPUs can be opened where there is none, such as where a cluster's image is made.
  const mode = gpu ? "open" : "compute";
  const { status, stdout, stderr } = await run([process.execPath], ["-e", SUM, addon, file, mode]);
  if (status !== 0) {
    const said = stderr.split("\n").find((line) => line.startsWith("error:")) ?? stderr.trim().split("\n").at(-1);
    throw new ConfigError(`install xla: ${file} does not run here (status ${status}): ${said}`);
  }
  const [major, minor, ...sum] = JSON.parse(stdout) as number[];
  if (!gpu && sum.join() !== "2,4") throw new ConfigError(`install xla: ${file} computed ${sum}, not 2,4`);
  return `${identity} opens, with version ${major}.${minor} of the PJRT API${gpu ? "" : ", and computes"}`;
}
