// What a model is, in one description for every engine, checkpoint and message: its family and its shape.
import { z } from "zod";
import { familyNames, familyOf } from "./family/families.ts";
import { shapeSchema } from "./family/family.ts";

export const modelSchema = shapeSchema.extend({ family: z.enum(familyNames) }).superRefine((model, context) => {
  const problem = familyOf(model).problem(model);
  if (problem) context.addIssue(problem);
});

export type ModelConfig = z.infer<typeof modelSchema>;

/** What matrix products take; their sums stay float32. tf32, of 10 bits, is what NVIDIA's tensor cores make of float32. */
export const precisions = ["float32", "tf32", "bf16"] as const;
export type Precision = (typeof precisions)[number];

/** "gpt2: 4 layers, 4 heads, 128 wide, block 64, vocabulary 65" */
export const summaryOf = (model: ModelConfig): string => `${model.family}: ${familyOf(model).summary(model)}`;
