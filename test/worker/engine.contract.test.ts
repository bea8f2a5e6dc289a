// The contract suite over every engine that is usable here.
import { tfjs } from "../../worker/engine/tfjs/engine.ts";
import { engineContract } from "./engine.contract.ts";

engineContract("tfjs wasm", (options) => tfjs.create({ ...options, backend: "wasm" }));
