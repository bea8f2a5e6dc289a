// The file of `weft launch`: where the coordinator runs, and who computes.
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { checked } from "../shared/check.ts";
import { ConfigError, messageOf } from "../shared/errors.ts";
import { readText } from "../shared/json.ts";

/** Written as in `ssh HOST`; never a flag of ssh's. */
const destination = z
  .string()
  .refine((name) => /^[^-\s]\S*$/.test(name), "must be a host as in `ssh HOST`, such as me@host-a");
const line = z.string().regex(/^[^\n]+$/, "must be one line");

const hostSchema = z.strictObject({
  ssh: destination,
  /** The command there, as its shell takes it. */
  weft: line.default("weft"),
  /** One number alone is a number in YAML. */
  gpus: z
    .union([z.string().min(1), z.int().min(0).transform(String)], "must be all, none, or numbers such as 0,2")
    .optional(),
  processes: z.int().min(1).optional(),
  threads: z.int().min(1).optional(),
});

const fileSchema = z.strictObject({
  /** `here`, or one of the hosts. */
  coordinator: z.string().default("here"),
  /** What workers call the coordinator's machine, where it is not what ssh tells. */
  address: z
    .string()
    .regex(/^\S+$/, "must be a host name or an address")
    .transform((address) => address.replace(/^\[(.*)\]$/, "$1"))
    .optional(),
  /** A file for `ssh -F`. */
  sshConfig: z.string().optional(),
  hosts: z.array(hostSchema).min(1),
});

export type HostEntry = z.infer<typeof hostSchema>;
export type HostsFile = z.infer<typeof fileSchema>;

/** This machine, without ssh. */
export const here = "here";

/** @throws ConfigError that names the field */
export async function readHosts(path: string): Promise<HostsFile> {
  const text = await readText(path, `launch: ${path}`);
  let value: unknown;
  try {
    value = parseYaml(text);
  } catch (error) {
    throw new ConfigError(`launch: ${path} is no YAML: ${messageOf(error).split("\n")[0]}`, { cause: error });
  }
  const file = checked(fileSchema, withMaps(value), `launch: ${path}`);
  const names = file.hosts.map(({ ssh }) => ssh);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new ConfigError(`launch: ${path} has ${twice} twice; one entry may have processes: 2`);
  if (file.coordinator !== here && !names.includes(file.coordinator))
    throw new ConfigError(
      `launch: ${path}: coordinator ${file.coordinator} is none of the hosts (${names.join(", ")}), nor "${here}"`,
    );
  return file;
}

/** A host may be written as its name alone. */
function withMaps(value: unknown): unknown {
  const { hosts } = (value ?? {}) as { hosts?: unknown };
  if (!Array.isArray(hosts)) return value;
  return { ...(value as object), hosts: hosts.map((host) => (typeof host === "string" ? { ssh: host } : host)) };
}
