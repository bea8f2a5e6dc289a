// `weft sample` on a terminal without a prompt: a text written by turns. Ctrl-C ends a turn, Ctrl-D the conversation.
import { createInterface } from "node:readline";
import { Conversation } from "../shared/decoding/conversation.ts";
import type { Decodable } from "../shared/decoding/decode.ts";
import type { TextOptions } from "../shared/decoding/text.ts";
import { ConfigError } from "../shared/errors.ts";
import type { Tokenizer } from "../shared/tokenizers/tokenizer.ts";
import { ModelText, say } from "./terminal.ts";

const help = [
  "a text       the model goes on with it, after all that was written before",
  "an empty line: it goes on by itself",
  "/reset       forget what was written",
  "/help        this",
  "Ctrl-C ends a turn, Ctrl-D the conversation",
].join("\n");

export async function converse(
  engine: Decodable,
  tokenizer: Tokenizer,
  options: Omit<TextOptions, "samples"> & { raw: boolean },
): Promise<void> {
  const text = new Conversation(engine, tokenizer, options);
  const lines = createInterface({ input: process.stdin, output: process.stdout, prompt: "> " });
  let isWriting = false;
  let isStopped = false;
  lines.on("SIGINT", () => {
    if (isWriting) isStopped = true;
    else lines.close();
  });
  say("a text for the model to go on with; /help says more");
  lines.prompt();
  try {
    for await (const line of lines) {
      if (line === "/help") say(help);
      else if (line === "/reset") text.reset();
      else if (/^\/[a-z]+$/.test(line)) say(`there is no ${line}; /help says what there is`);
      else if (line !== "" || !text.isEmpty) {
        isWriting = true;
        await turn(text, line, options.raw, () => isStopped);
        isWriting = isStopped = false;
      }
      lines.prompt();
    }
  } finally {
    lines.close();
    text.reset();
  }
  say(""); // Ctrl-D leaves the cursor behind the prompt
}

async function turn(text: Conversation, line: string, raw: boolean, isStopped: () => boolean): Promise<void> {
  const shown = new ModelText(raw);
  try {
    for await (const piece of text.goOn(line, isStopped)) shown.write(piece);
    shown.end();
  } catch (error) {
    // Such as a character that the vocabulary lacks: the text so far stays.
    if (!(error instanceof ConfigError)) throw error;
    say(error.message);
  }
}
