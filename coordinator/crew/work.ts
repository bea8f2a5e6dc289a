// One round as the dispatcher sees it: which units are out, which are in and whose answer counted. Each counts exactly
// once; one that is to be confirmed counts when two workers have said the same. Until then only digests are kept of what
// was said: the vector that counts is the one that comes with the second of them.
import { nodeName, type TreeNode } from "../../shared/arithmetic/tree.ts";
import type { Share } from "./begun.ts";
import { type Awaited, type Grant, type Lease, overlap } from "./plan.ts";

export interface PartRecord {
  readonly shards: string;
  readonly worker: string;
  /** How many leases held units of this part when it was answered: more than one where it was repeated. */
  readonly leases: number;
  /** Who has said the same before it counted; absent where nobody was asked. */
  readonly second?: string;
  /** Who took its first steps, where somebody handed it over. */
  readonly begun?: readonly Share[];
}

export interface Opinion {
  readonly worker: string;
  /** Of all that it answered. */
  readonly digest: string;
}

/** What was said of a node that is to be confirmed. */
export interface Question extends Awaited {
  readonly opinions: readonly Opinion[];
  /** When the last of them came. */
  readonly since: number;
  /** Nobody was left to ask, so those who differ are asked once more. */
  readonly isRepeated: boolean;
}

interface OpenQuestion extends Question {
  readonly opinions: Opinion[];
  readonly heard: Set<string>;
  since: number;
  isRepeated: boolean;
}

interface Part extends TreeNode {
  readonly worker: string;
  readonly leases: number;
  readonly second: string | undefined;
  readonly begun: readonly Share[];
}

export class Work {
  readonly units: number;
  /** Those that are in, though they may not count yet. */
  readonly done: boolean[];
  readonly leases: Lease[] = [];
  /** Units whose answer could not count, and who is not to be asked for them. */
  readonly refusals = new Map<number, ReadonlySet<string>>();
  /** Answers that could not count and may have been right: not all of their units have been given by others since. */
  readonly #refused = new Set<TreeNode & { readonly worker: string }>();
  readonly #questions = new Map<string, OpenQuestion>();
  /** Units that nobody could be asked about a second time. */
  readonly #unasked = new Set<number>();
  readonly #counted: boolean[];
  readonly #parts: Part[] = [];
  #missing: number;

  constructor(units: number) {
    this.units = units;
    this.#missing = units;
    this.done = Array.from({ length: units }, () => false);
    this.#counted = Array.from({ length: units }, () => false);
  }

  get complete(): boolean {
    return this.#missing === 0;
  }

  /** Before it all are in and count. */
  get firstMissing(): number {
    return this.#counted.indexOf(false);
  }

  /** Nodes that await another's opinion. */
  get questions(): Question[] {
    return [...this.#questions.values()];
  }

  /** These, and those that two are to say something of, and nobody has. */
  get awaited(): Awaited[] {
    const all = new Map<string, Awaited>(this.#questions);
    for (const { first, count, arithmetic, isDrawn } of this.leases) {
      const name = nodeName({ first, count });
      if (isDrawn && !all.has(name)) all.set(name, { first, count, arithmetic, heard: new Set(), wanted: 2 });
    }
    return [...all.values()];
  }

  grant({ first, count, worker, arithmetic, isDrawn, begun }: Grant, id: number, now: number): Lease {
    const lease = { id, first, count, worker, arithmetic, isDrawn, begun, grantedAt: now };
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

  /** Is another's opinion of this very node awaited? */
  isAsked(node: TreeNode): boolean {
    return this.#questions.has(nodeName(node));
  }

  /** Was it found that nobody can be asked about it? */
  isUnasked({ first }: TreeNode): boolean {
    return this.#unasked.has(first);
  }

  /** Note what the holder of a lease that has ended says of its node. @returns others who said the same */
  hear(lease: Lease, digest: string, arithmetic: string, now: number): string[] {
    const { first, count, worker } = lease;
    const question = this.#questions.get(nodeName(lease)) ?? {
      ...{ first, count, arithmetic, wanted: 1 as const, since: now, isRepeated: false },
      ...{ opinions: [], heard: new Set<string>() },
    };
    this.#questions.set(nodeName(lease), question);
    question.opinions.push({ worker, digest });
    question.heard.add(worker);
    question.since = now;
    this.done.fill(true, first, first + count);
    const alike = question.opinions.filter((other) => other.worker !== worker && other.digest === digest);
    return alike.map((other) => other.worker);
  }

  /** Ask those once more who have said something about it. */
  repeat(node: TreeNode): void {
    const question = this.#questions.get(nodeName(node))!;
    question.isRepeated = true;
    question.heard.clear();
  }

  /** Nobody can be asked: it is computed again, and counts at once then. */
  giveUp({ first, count }: TreeNode): void {
    this.#drop({ first, count });
    for (let unit = first; unit < first + count; unit++) this.#unasked.add(unit);
  }

  /** Nothing that this worker said or holds is of use any more. */
  forget(name: string): void {
    for (const lease of this.leases.filter(({ worker }) => worker === name)) this.end(lease);
    for (const question of this.questions) {
      const others = question.opinions.filter(({ worker }) => worker !== name);
      if (others.length === 0) this.#drop(question);
      else this.#questions.set(nodeName(question), { ...(question as OpenQuestion), opinions: others });
    }
  }

  /** Did an answer of its count that nobody else has confirmed? */
  countsUnconfirmed(name: string): boolean {
    return this.#parts.some(
      ({ worker, second, begun }) =>
        second === undefined && (worker === name || begun.some((share) => share.worker === name)),
    );
  }

  #drop(node: TreeNode): void {
    this.#questions.delete(nodeName(node));
    this.done.fill(false, node.first, node.first + node.count);
  }

  /**
   * Count the answer of a lease that has ended.
   * @param agreed who had given the same answer before
   * @returns the leases that hold units of it too, no longer needed, and who had said something else
   */
  count(lease: Lease, agreed?: string): { others: Lease[]; differing: string[] } {
    const { first, count, worker } = lease;
    for (let unit = first; unit < first + count; unit++)
      if (this.#counted[unit]) throw new Error(`unit ${unit} would count twice`);
    const opinions = this.#questions.get(nodeName(lease))?.opinions ?? [];
    const digest = opinions.find((opinion) => opinion.worker === agreed)?.digest;
    const differing = opinions.filter((opinion) => opinion.digest !== digest).map((opinion) => opinion.worker);
    this.#questions.delete(nodeName(lease));
    this.done.fill(true, first, first + count);
    this.#counted.fill(true, first, first + count);
    this.#missing -= count;
    const others = this.overlapping(lease);
    const leases = Math.max(1, opinions.length) + others.length;
    const by = agreed === undefined ? { worker, second: undefined } : { worker: agreed, second: worker };
    this.#parts.push({ first, count, ...by, leases, begun: lease.begun?.by ?? [] });
    return { others, differing: [...new Set(differing)] };
  }

  /** Leases that hold units of this node. */
  overlapping(node: TreeNode): Lease[] {
    return this.leases.filter((other) => overlap(other, node));
  }

  /** An answer could not count: its worker is not asked again while there are others. */
  refuse({ first, count, worker }: Lease): void {
    this.#refused.add({ first, count, worker });
    for (let unit = first; unit < first + count; unit++)
      this.refusals.set(unit, this.opinions({ first: unit, count: 1 }));
  }

  /** Answers that could not count where every unit of theirs has been given rightly since: each is named once. */
  takeWrong(): (TreeNode & { readonly worker: string })[] {
    const wrong = [...this.#refused].filter(
      ({ first, count }) => !this.#counted.slice(first, first + count).includes(false),
    );
    for (const answer of wrong) this.#refused.delete(answer);
    return wrong;
  }

  /** There is nobody else: those whose answers could not count may be asked again. */
  forgive(): void {
    this.refusals.clear();
  }

  /** Who gave answers for these units that could not count. */
  opinions(node: TreeNode): ReadonlySet<string> {
    return new Set([...this.#refused].filter((answer) => overlap(answer, node)).map(({ worker }) => worker));
  }

  /** How many units each worker has done of those that counted. @param steps of a unit */
  unitsByWorker(steps: number): Map<string, number> {
    const units = new Map<string, number>();
    const add = (worker: string, count: number) => units.set(worker, (units.get(worker) ?? 0) + count);
    for (const { worker, count, begun } of this.#parts) {
      add(worker, count);
      for (const share of begun) {
        add(share.worker, share.steps / steps);
        add(worker, -share.steps / steps);
      }
    }
    return units;
  }

  /** The parts in the order of the shards, for the ledger. @param each shards of a unit */
  records(each: number): PartRecord[] {
    return [...this.#parts]
      .sort((a, b) => a.first - b.first)
      .map(({ first, count, worker, leases, second, begun }) => ({
        ...{ shards: nodeName({ first: first * each, count: count * each }), worker, leases },
        ...(second !== undefined && { second }),
        ...(begun.length > 0 && { begun }),
      }));
  }
}
