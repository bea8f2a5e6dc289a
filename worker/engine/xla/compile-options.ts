// CompileOptionsProto (xla/pjrt/proto/compile_options.proto), as few bytes as it takes: one device, a program that runs
// on any of them, and XLA's flags, which so belong to the program and not to the process's environment.

/** XLA's flags by their names. */
export type XlaFlags = Readonly<Record<string, boolean | number | string>>;

const utf8 = new TextEncoder();

function varint(x: number): number[] {
  const out: number[] = [];
  for (; x > 127; x = Math.floor(x / 128)) out.push((x % 128) + 128);
  return [...out, x];
}

const number = (field: number, x: number): number[] => [...varint(field * 8), ...varint(x)];
const bytes = (field: number, content: Iterable<number>): number[] => {
  const all = [...content];
  return [...varint(field * 8 + 2), ...varint(all.length), ...all];
};

export function compileOptions(flags: XlaFlags): Uint8Array {
  const build = [...number(4, 1), ...number(5, 1)]; // num_replicas, num_partitions
  const overrides = Object.entries(flags).flatMap(([name, value]) => {
    const override =
      typeof value === "string"
        ? bytes(1, utf8.encode(value))
        : typeof value === "boolean"
          ? number(2, value ? 1 : 0)
          : number(3, value);
    return bytes(7, [...bytes(1, utf8.encode(name)), ...bytes(2, override)]); // env_option_overrides
  });
  return Uint8Array.from([...bytes(3, build), ...number(4, 1), ...overrides]); // compile_portable_executable
}
