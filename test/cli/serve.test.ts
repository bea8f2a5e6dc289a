// The completions endpoint over a model without weights: what it says, what it refuses, and its bounds.
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { completionsServer } from "../../cli/completions.ts";
import { accessWith } from "../../coordinator/serve/access.ts";
import { continueText } from "../../shared/decoding/text.ts";
import { CharTokenizer } from "../../shared/tokenizers/char.ts";
import { ToyModel } from "../toy.ts";

const tokenizer = CharTokenizer.of("abcdefgh ");
const engine = new ToyModel(32, tokenizer.vocabSize);
const token = "0123456789abcdef";
const errors: unknown[] = [];
const server = completionsServer({
  ...{ name: "toy", engine, tokenizer, mostSamples: 3, mostTokens: 100, access: accessWith(token) },
  now: () => 1_700_000_000,
  onError: (error) => errors.push(error),
});
let client: OpenAI;
let url: string;
beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  client = new OpenAI({ baseURL: url, apiKey: token, maxRetries: 0 });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  expect(errors).toEqual([]);
  expect(engine.open).toBe(0);
});

const asked = { model: "toy", prompt: "abc", max_tokens: 40, seed: 7, temperature: 0.9, top_p: 0.9 };

async function expected(stop: string[] = [], samples = 1): Promise<string[]> {
  const style = { tokens: 40, temperature: 0.9, topP: 0.9, topK: 0, repetitionPenalty: 1, seed: 7 };
  const texts = Array.from({ length: samples }, () => "");
  for await (const piece of continueText(engine, tokenizer, "abc", { ...style, samples, stop }))
    texts[piece.sample] += piece.text;
  return texts;
}

test("the openai client lists the model and gets what weft sample would write, whole and as a stream", async () => {
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(["toy"]);
  const whole = await client.completions.create({ ...asked, n: 3 });
  expect(whole.choices.map(({ text }) => text)).toEqual(await expected([], 3));
  expect(whole.choices[0]!.finish_reason).toBe("length");
  expect(whole.usage).toEqual({ prompt_tokens: 3, completion_tokens: 120, total_tokens: 123 });
  let text = "";
  let pieces = 0;
  for await (const part of await client.completions.create({ ...asked, stream: true })) {
    text += part.choices[0]!.text;
    pieces++;
  }
  expect(text).toBe((await expected())[0]);
  expect(pieces).toBeGreaterThan(10);
});

test("a stop string ends a text and is no part of it; token ids are a prompt too", async () => {
  const stop = (await expected())[0]!.slice(10, 12);
  const { choices } = await client.completions.create({ ...asked, prompt: [...tokenizer.encode("abc")], stop });
  expect(choices[0]).toMatchObject({ text: (await expected([stop]))[0], finish_reason: "stop" });
});

test.each([
  [{ model: "gpt-4" }, 404, /there is no model "gpt-4", only "toy"/],
  [{ n: 4 }, 400, /n: at most 3/],
  [{ max_tokens: 101 }, 400, /max_tokens: at most 100/],
  [{ prompt: "" }, 400, /it is empty/],
  [{ prompt: "Q" }, 400, /"Q"/],
  [{ prompt: [99] }, 400, /token 99 at position 0/],
  [{ prompt: [1, 2 ** 32 + 1] }, 400, /token 4294967297 at position 1/],
  [{ logprobs: 2 }, 400, /logprobs: this server does not do that/],
  [{ logprobs: 0 }, 400, /logprobs: this server does not do that/],
  [{ echo: true }, 400, /echo: this server does not do that/],
  [{ temperature: -1 }, 400, /temperature/],
  [{ best: 2 }, 400, /best/],
])("%j is refused by name", async (change, status, message) => {
  const request = client.completions.create({ ...asked, ...change } as never);
  await expect(request).rejects.toMatchObject({ status, message: expect.stringMatching(message) });
});

test("without the token nothing is told, and what is too long is not read", async () => {
  expect((await fetch(`${url}/models`)).status).toBe(401);
  const headers = { authorization: `Bearer ${token}` };
  const long = await fetch(`${url}/completions`, { method: "POST", headers, body: "x".repeat(2 ** 21) }).catch(
    () => null,
  );
  expect([413, undefined]).toContain(long?.status);
  const garbage = await fetch(`${url}/completions`, { method: "POST", headers, body: "{" });
  expect([garbage.status, ((await garbage.json()) as { error: Error }).error.message]).toEqual([
    400,
    "the request is not JSON",
  ]);
});

test("who leaves in the middle stops the work, and the next one is served", async () => {
  const stop = new AbortController();
  const left = new Promise((resolve) => server.once("request", (_, response) => response.once("close", resolve)));
  // Three tokens, the next when the client has gone.
  let tokens = 0;
  engine.pace = async () => ++tokens > 3 && (await left);
  const parts = await client.completions.create({ ...asked, max_tokens: 100, stream: true }, { signal: stop.signal });
  for await (const _ of parts) break;
  stop.abort();
  await left;
  engine.pace = async () => {};
  expect((await client.completions.create(asked)).choices[0]!.text).toBe((await expected())[0]);
});
