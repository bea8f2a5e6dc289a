// What the harness needs of a reader of files. A mutated file is refused, by a ConfigError of one line, or read to the
// values that an independent reading of the same bytes gives. Add yours to readers.ts.

/** Files of a folder by name. */
export type Files = Readonly<Record<string, Buffer>>;

export interface FuzzReader {
  readonly name: string;
  /** Valid folders, and which of their files is mutated. */
  readonly seeds: readonly { readonly files: Files; readonly target: string }[];
  /** Make a mutated file whole again where a checksum or length would refuse every mutation: applied half of the time. */
  readonly mend?: (file: Buffer, target: string) => Buffer;
  /** Read the folder with the program's own reader; what it returns is compared and dumped, as JSON. */
  read(folder: string, target: string): Promise<unknown>;
  /** What is wrong with a value that was read from these files, by a reading that shares no code; nothing if it is right. */
  complaint(value: unknown, files: Files, target: string): string | undefined;
  /** Would the reference take these files? Then only refusals that `stricter` knows are right. Default: unknown. */
  accepts?(files: Files, target: string): boolean;
  readonly stricter?: RegExp;
}
