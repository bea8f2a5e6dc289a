// Every reader that the fuzz knows.
import { dataReaders } from "./data-readers.ts";
import { modelReaders } from "./model-readers.ts";
import type { FuzzReader } from "./reader.ts";
import { tokenizerReaders } from "./tokenizer-readers.ts";

export const readers: readonly FuzzReader[] = [...modelReaders, ...dataReaders, ...tokenizerReaders];
