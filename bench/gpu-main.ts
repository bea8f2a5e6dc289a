// The gpu part alone, as scripts/pack-gpu-bench.sh packs it: `./run PLUGIN.so [8,16,32]`.
import { benchGpu } from "./gpu.ts";

await benchGpu((process.argv[2] ?? "8,16,32").split(",").map(Number));
process.exit(0);
