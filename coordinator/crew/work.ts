// One round as the dispatcher sees it: which units are out, which are in and whose answer counted. Each counts exactly
// once.
import { nodeName, type TreeNode } from "../../shared/arithmetic/tree.ts";
import { type Grant, type Lease, overlap } from "./plan.ts";

export interface PartRecord {
  readonly shards: string;
  readonly worker: string;
  /** How many leases held units of this part when it was answered: more than one where it was repeated. */
  readonly leases: number;
}

export class Work {
  readonly units: number;
  readonly done: boolean[];
  readonly leases: Lease[] = [];
  /** Units whose answer could not count, and who is not to be asked for them. */
  readonly refusals = new Map<number, ReadonlySet<string>>();
  /** The same without forgiving: who gave such an answer for a unit, ever. */
  readonly #opinions = new Map<number, Set<string>>();
  readonly #parts: (TreeNode & { worker: string; leases: number })[] = [];
  #missing: number;

  constructor(units: number) {
    this.units = units;
    this.#missing = units;
    this.done = Array.from({ length: units }, () => false);
  }

  get complete(): boolean {
    return this.#missing === 0;
  }

  grant({ first, count, worker }: Grant, id: number, now: number): Lease {
    const lease = { id, first, count, worker, grantedAt: now };
    this.leases.push(lease);
    return lease;
  }

  find(id: number): Lease | undefined {
    return this.leases.find((lease) => lease.id === id);
  }

  /** Take a lease off the list, whatever became of it. */
  end(lease: Lease): void {
    const index = this.leases.indexOf(lease);
    if (index >= 0) this.leases.splice(index, 1);
  }

  /** Count the answer of a lease that has ended. @returns the leases that hold units of it too, no longer needed */
  count(lease: Lease): Lease[] {
    const { first, count, worker } = lease;
    for (let unit = first; unit < first + count; unit++)
      if (this.done[unit]) throw new Error(`unit ${unit} would count twice`);
    this.done.fill(true, first, first + count);
    this.#missing -= count;
    const others = this.leases.filter((other) => overlap(other, lease));
    this.#parts.push({ first, count, worker, leases: 1 + others.length });
    return others;
  }

  /** An answer could not count: its worker is not asked again while there are others. */
  refuse({ first, count, worker }: Lease): void {
    for (let unit = first; unit < first + count; unit++) {
      const seen = this.#opinions.get(unit) ?? new Set();
      this.#opinions.set(unit, seen.add(worker));
      this.refusals.set(unit, seen);
    }
  }

  /** There is nobody else: those whose answers could not count may be asked again. */
  forgive(): void {
    this.refusals.clear();
  }

  /** Who gave answers for these units that could not count. */
  opinions({ first, count }: TreeNode): ReadonlySet<string> {
    const who = new Set<string>();
    for (let unit = first; unit < first + count; unit++)
      for (const name of this.#opinions.get(unit) ?? []) who.add(name);
    return who;
  }

  /** How many units each worker's counted answers were. */
  unitsByWorker(): Map<string, number> {
    const units = new Map<string, number>();
    for (const { worker, count } of this.#parts) units.set(worker, (units.get(worker) ?? 0) + count);
    return units;
  }

  /** The parts in the order of the shards, for the ledger. */
  records(): PartRecord[] {
    return [...this.#parts]
      .sort((a, b) => a.first - b.first)
      .map((part) => ({ shards: nodeName(part), worker: part.worker, leases: part.leases }));
  }
}
