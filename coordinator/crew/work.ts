// One round of work: the shards of a training step or the windows of an evaluation. It knows which parts are out,
// which are in and whose answer counted; each part counts exactly once.
import { nodeName, type TreeNode } from "../../shared/arithmetic/tree.ts";
import type { Grant, Lease, StepView } from "./plan.ts";

export interface PartRecord {
  readonly shards: string;
  readonly worker: string;
  /** How many leases of this very part there were: more than one where one was hedged. */
  readonly leases: number;
}

export class Work implements StepView {
  readonly purpose: "train" | "eval";
  /** Updates applied before this round: the step whose weights it needs. */
  readonly step: number;
  readonly units: number;
  readonly largest: number;
  readonly graceMs: number;
  readonly done: boolean[];
  readonly leases: Lease[] = [];
  readonly parts: (TreeNode & { worker: string; leases: number })[] = [];
  /** First unit of a part, and how often its answer was refused because it was not finite. */
  readonly refusals = new Map<number, number>();

  constructor(purpose: "train" | "eval", step: number, units: number, largest: number, graceMs: number) {
    this.purpose = purpose;
    this.step = step;
    this.units = units;
    this.largest = largest;
    this.graceMs = graceMs;
    this.done = Array.from({ length: units }, () => false);
  }

  get complete(): boolean {
    return !this.done.includes(false);
  }

  grant({ first, count }: Grant, id: number, worker: string, now: number): Lease {
    const lease = { id, first, count, worker, grantedAt: now };
    this.leases.push(lease);
    return lease;
  }

  /** Take a lease off the list, whatever became of it. Undefined: it belongs to another round. */
  end(id: number): Lease | undefined {
    const index = this.leases.findIndex((lease) => lease.id === id);
    return index < 0 ? undefined : this.leases.splice(index, 1)[0];
  }

  /** Count the answer of a lease that has ended. @returns the leases of the same part that are no longer needed */
  count(lease: Lease): Lease[] {
    if (this.done[lease.first]) throw new Error(`part ${nodeName(lease)} of step ${this.step} would count twice`);
    this.done.fill(true, lease.first, lease.first + lease.count);
    const copies = this.leases.filter((other) => overlap(other, lease));
    this.parts.push({ first: lease.first, count: lease.count, worker: lease.worker, leases: 1 + copies.length });
    return copies;
  }

  /** How many units each worker's counted answers were. */
  unitsByWorker(): Map<string, number> {
    const units = new Map<string, number>();
    for (const { worker, count } of this.parts) units.set(worker, (units.get(worker) ?? 0) + count);
    return units;
  }

  /** The parts in the order of the shards, for the ledger. */
  records(): PartRecord[] {
    return [...this.parts]
      .sort((a, b) => a.first - b.first)
      .map((part) => ({ shards: nodeName(part), worker: part.worker, leases: part.leases }));
  }
}

function overlap(a: TreeNode, b: TreeNode): boolean {
  return a.first < b.first + b.count && b.first < a.first + a.count;
}
