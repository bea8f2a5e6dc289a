// Names that come over the wire or out of a file of somebody else's, and go into paths, logs, pages and metrics: each
// is checked by its shape here, where it enters, so that no name can leave a folder or speak to a terminal.
import { z } from "zod";

/** Characters that act instead of being seen: controls, line separators, and those that turn the direction of text. */
export const unseen = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]/u;

/** Of a run, a worker, a machine, an arithmetic: for people to read. */
export const titleSchema = z
  .string()
  .min(1)
  .max(128)
  .refine((text) => !unseen.test(text), "holds characters that cannot be seen")
  // What holds it is not read as JSON of ours (json.ts): a worker could make a checkpoint unreadable.
  .refine((text) => text !== "__proto__", "is no name");

/** Of a file of a checkpoint: it stands in that checkpoint's folder, hidden nowhere, on any file system. */
export const fileNameSchema = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/, "is not the name of a file");

/** Of a checkpoint: what checkpointName() makes of a step. */
export const checkpointNameSchema = z.string().regex(/^step-\d{6,15}$/, "is not the name of a checkpoint");
