// The one list of a model's parameters. Engines, optimizer, wire and checkpoints derive names, shapes and offsets of
// the flat weight vector from it. What the parameters are is the family's affair.
import type { DecayStretch } from "../arithmetic/adamw.ts";
import type { ModelConfig } from "../model.ts";
import { familyOf } from "./families.ts";
import type { ParameterKey, Slot } from "./family.ts";

export interface Parameter extends Slot {
  /** Position of the first element in the flat vector, in floats. */
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
  /** Weight decay applies: tensors of two or more dimensions, as in nanoGPT. */
  readonly decay: boolean;
}

export interface Layout {
  readonly parameters: readonly Parameter[];
  /** P: floats in the flat vector, which holds the parameters one after another without padding. */
  readonly size: number;
  readonly byKey: ReadonlyMap<ParameterKey, Parameter>;
  readonly byName: ReadonlyMap<string, Parameter>;
}

/** The parameters of a model in the order of the flat vector. */
export function layoutOf(model: ModelConfig): Layout {
  let end = 0;
  const parameters = familyOf(model)
    .slots(model)
    .map((slot) => {
      const size = slot.shape.reduce((product, dimension) => product * dimension, 1);
      const offset = end;
      end += size;
      return { ...slot, offset, size, decay: slot.shape.length >= 2 };
    });
  return {
    parameters,
    size: end,
    byKey: new Map(parameters.map((p) => [p.key, p])),
    byName: new Map(parameters.map((p) => [p.name, p])),
  };
}

/** Neighbouring parameters of one kind of decay, to be updated in one go. */
export function decayStretches({ parameters }: Layout): readonly DecayStretch[] {
  const found: { offset: number; size: number; decay: boolean }[] = [];
  for (const { offset, size, decay } of parameters) {
    const last = found.at(-1);
    if (last?.decay === decay) last.size += size;
    else found.push({ offset, size, decay });
  }
  return found;
}
