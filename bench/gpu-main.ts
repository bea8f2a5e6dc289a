// The gpu part alone, as scripts/pack-gpu-bench.sh packs it: `./run PLUGIN.so [8,16,32]`.
import { messageOf } from "../shared/errors.ts";
import { benchGpu } from "./gpu.ts";

try {
  await benchGpu((process.argv[2] ?? "8,16,32").split(",").map(Number));
  process.exit(0);
} catch (error) {
  console.error(messageOf(error));
  process.exit(1);
}
