// Who is not let in any more, and why: workers whose answer differed from what two others gave alike. Kept beside the run,
// so that neither coming back nor another start of the coordinator clears it; --allow does.
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeProven } from "../../shared/checkpoint/manifest.ts";
import { onDisk } from "../../shared/disk.ts";
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { isAbsent, readJson } from "../../shared/json.ts";

export const quarantinedSchema = z.strictObject({
  /** As its connection was called when it was found out, then what else came from its address. */
  names: z.array(z.string()).min(1),
  /** Null where others in good standing work from there, and for this machine's own. */
  address: z.string().nullable(),
  why: z.string(),
  /** Updates of the weights when it was found out. */
  step: z.int().min(0),
  at: z.iso.datetime(),
});
export type Quarantined = z.infer<typeof quarantinedSchema>;

export const quarantineName = "quarantine.json";

export class Quarantine {
  #list: Quarantined[];
  readonly #save: (list: readonly Quarantined[]) => void;

  /** @param save hears of every change */
  constructor(list: readonly Quarantined[] = [], save: (list: readonly Quarantined[]) => void = () => {}) {
    this.#list = [...list];
    this.#save = save;
  }

  get list(): readonly Quarantined[] {
    return this.#list;
  }

  add(entry: Quarantined): void {
    this.#list.push(entry);
    this.#save(this.#list);
  }

  /** The entry that keeps it out, if one does. @param address undefined for this machine's own */
  of(name: string, address: string | undefined): Quarantined | undefined {
    return this.#list.find(
      (entry) => entry.names.includes(name) || (entry.address !== null && entry.address === address),
    );
  }
}

/** Were these parts given by one of them, under this name or with the number that a second connection gets? */
export function isBy(list: readonly Pick<Quarantined, "names">[], worker: string): boolean {
  const numbered = (a: string, b: string) => a.startsWith(`${b}-`) && /^\d+$/.test(a.slice(b.length + 1));
  return list.some(({ names }) =>
    names.some((name) => name === worker || numbered(name, worker) || numbered(worker, name)),
  );
}

/**
 * The quarantine of a run's folder, without those that are allowed again.
 * @param allowed names and addresses
 * @throws ConfigError where one of them is not in it, or the file is damaged
 */
export async function readQuarantine(runDir: string, allowed: readonly string[]): Promise<Quarantined[]> {
  const path = join(runDir, quarantineName);
  const raw = await readJson(path).catch((error) => {
    if (isAbsent(error)) return [];
    throw error;
  });
  const { data } = z.array(quarantinedSchema).safeParse(raw);
  if (!data)
    throw new ConfigError(`${path} is damaged: it keeps out workers that gave wrong answers; repair or remove it`);
  for (const who of allowed)
    if (!data.some((entry) => entry.address === who || entry.names.includes(who)))
      throw new ConfigError(
        `config: --allow ${who}: it is not in quarantine; there are ${data.flatMap(({ names }) => names).join(", ") || "none"}`,
      );
  return data.filter(({ names, address }) => !allowed.some((who) => who === address || names.includes(who)));
}

/** Put the list in the place of the one before, whole. @throws ConfigError where the disk refuses */
export async function writeQuarantine(runDir: string, list: readonly Quarantined[]): Promise<void> {
  const path = join(runDir, quarantineName);
  // Not one of the names that prune() takes for leftovers: it may run beside this.
  const temporary = join(runDir, `.${quarantineName}.new`);
  await onDisk(path, "written", async () => {
    await rm(temporary, { force: true });
    await writeProven(temporary, [Buffer.from(`${JSON.stringify(list, null, 2)}\n`)]);
    await rename(temporary, path);
  });
}

/**
 * Each list is whole on the disk before the next one.
 * @param onTrouble hears what a disk refuses
 * @param onWritten hears of every list that is on the disk
 */
export function quarantineWriter(runDir: string, onTrouble: (why: string) => void, onWritten: () => void) {
  let writing: Promise<void> = Promise.resolve();
  return (list: readonly Quarantined[]): void => {
    const copy = [...list];
    writing = writing
      .then(() => writeQuarantine(runDir, copy))
      .then(onWritten)
      .catch((error) => onTrouble(messageOf(error)));
  };
}
