// GPT-2's tokenizer under measurement: `node tokenizer-contestant.js TASK.json`. For each line that asks it encodes the
// task anew, with a tokenizer that has seen nothing. tiktoken_contestant.py speaks the same.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { gpt2Tokenizer } from "../shared/tokenizers/gpt2.ts";
import { weftVersion } from "../shared/version.ts";
import type { TokenizerAnswer, TokenizerTask } from "./tokenizer.ts";

const { before, timed } = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as TokenizerTask;
console.log(JSON.stringify({ ready: `Weft ${weftVersion}` }));
for await (const _ of createInterface({ input: process.stdin })) {
  const tokenizer = gpt2Tokenizer();
  for (const piece of before) tokenizer.encode(piece);
  const [started, used] = [process.hrtime.bigint(), process.cpuUsage()];
  const ids = timed.map((piece) => tokenizer.encode(piece));
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  const { user, system } = process.cpuUsage(used);
  const digest = createHash("sha256");
  for (const some of ids) digest.update(some);
  const tokens = ids.reduce((sum, { length }) => sum + length, 0);
  const answer: TokenizerAnswer = { seconds, cpuSeconds: (user + system) / 1e6, tokens, sha256: digest.digest("hex") };
  console.log(JSON.stringify(answer));
}
