// The table of families. Everything that must know them all derives from it: the schema of a model, --family, the
// readers of config.json.
import { bigram } from "./bigram.ts";
import type { Family } from "./family.ts";
import { gpt1 } from "./gpt1.ts";
import { gpt2 } from "./gpt2.ts";

export const families = { gpt2, gpt1, bigram } satisfies Record<string, Family>;

export type FamilyName = keyof typeof families;

export const familyNames = Object.keys(families) as [FamilyName, ...FamilyName[]];

export const familyOf = ({ family }: { readonly family: FamilyName }): Family => families[family];
