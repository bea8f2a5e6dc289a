// The table of options as flags, there and back.
import { Command } from "commander";
import { expect, test } from "vitest";
import { addOptions, askedFor, sourcesOf } from "../../cli/options.ts";
import { flagsFor, type OptionGroup, type OptionName, type OptionSpec, optionTable } from "../../shared/config.ts";
import { mergeOptions, type Resolved, resolveOptions } from "../../shared/resolve.ts";

const groups = [...new Set(Object.values(optionTable).map(({ group }) => group))] as OptionGroup[];

async function read(words: readonly string[]): Promise<Omit<Resolved, "notes">> {
  const command = addOptions(new Command("any"), groups).action(() => {});
  await command.parseAsync(words, { from: "user" });
  return mergeOptions(await sourcesOf(command));
}

/** Another value than the default, of the kind that the option takes. */
function another({ default: initial, value, schema }: OptionSpec) {
  const choices = value?.includes("|") && value !== "NAME|DIR" ? value.split("|") : [];
  const tried = [
    ...choices,
    ...(typeof initial === "boolean" ? [!initial] : []),
    ...(typeof initial === "number" ? [1, 0.5, 2, 4096] : []),
    ...(Array.isArray(initial) ? [["ws://a:1", "ws://b:2"]] : ["s3://bucket/a b", "", "7"]),
  ];
  return tried.find((one) => one !== initial && schema.safeParse(one).success)!;
}

test("every option comes back from its flags", async () => {
  for (const [name, spec] of Object.entries(optionTable) as [OptionName, OptionSpec][]) {
    const value = another(spec);
    const { options } = await read(flagsFor({ [name]: value }));
    expect(options[name], name).toEqual(value);
  }
});

test("what launch hands on says the same: a switch that is off, a list, an empty text", async () => {
  const given = { stay: false, sharedMemory: false, allow: ["a", "b"], prompt: "", resume: true, threads: 3 };
  const words = askedFor(
    await read([...flagsFor(given), "--steps", "40"]),
    ["network", "trust", "run", "serving", "training"],
    ["resume"],
  );
  expect(words).toEqual([
    ...["--steps", "40", "--prompt", "", "--no-stay", "--no-shared-memory", "--allow", "a", "--allow", "b"],
  ]);
});

test("what changes nothing is said, from wherever it came; flags that contradict each other are refused", () => {
  const notes = (file: object, flags: object = {}) =>
    resolveOptions({ file: { path: "f.yaml", values: { ...file } }, flags: { ...flags } }).notes.join("\n");
  expect(notes({ replicas: 2 })).toMatch(/--replicas 2 \(from the file\) changes nothing without --local-steps/);
  expect(notes({ decaySteps: 500 }, { schedule: "constant" })).toMatch(/--decay-steps 500 .* changes nothing with/);
  expect(notes({ schedule: "constant", minLearningRate: 1e-5 })).toMatch(
    /--min-learning-rate 0.00001 .* changes nothing/,
  );
  expect(() => notes({}, { schedule: "constant", minLearningRate: 1e-5 })).toThrow(/--min-learning-rate belongs to/);
  // A file of all options, as a run was made with.
  expect(notes({ replicas: optionTable.replicas.default, innerState: optionTable.innerState.default })).toBe("");
  expect(notes({ localSteps: 2, replicas: 2 })).toBe("");
});
