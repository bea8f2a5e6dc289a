// The gpu part alone, as scripts/pack-gpu-bench.sh packs it. With --measure it is one measurement of benchGpu's.
import { messageOf } from "../shared/errors.ts";
import { flagsOf } from "./flags.ts";
import { type BenchDevice, benchGpu, measureGpu } from "./gpu.ts";

const values = flagsOf("./run [PYTHON]", {
  rows: { type: "string", default: "8,16,32" },
  python: { type: "string", default: "" },
  device: { type: "string", default: "gpu" },
  measure: { type: "string" },
});
const device = values.device as BenchDevice;
try {
  if (values.measure) console.log(JSON.stringify(await measureGpu(Number(values.measure), device)));
  else await benchGpu(values.rows.split(",").map(Number), values.python, device);
  process.exit(0);
} catch (error) {
  console.error(messageOf(error));
  process.exit(1);
}
