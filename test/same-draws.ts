// Properties are tried with the same draws each time; WEFT_SEED=N npm test tries others.
import fc from "fast-check";

fc.configureGlobal({ seed: Number(process.env.WEFT_SEED ?? 1337) });
