// What the run thinks of a worker, by its name, so that leaving and coming back does not clear it. Who lets the others
// wait, or gives what cannot count, is put on probation: it then computes only what somebody else computes as well, until
// it has answered in time often enough.

/** Debts that lead to probation. */
const most = 3;
/** What one answer in time pays back. */
const repaid = 0.5;
/** Names that are remembered: the longest forgotten goes first. */
const remembered = 4096;

export class Standing {
  /** Debts of those who have any, the newest change last. */
  readonly #debts = new Map<string, { debt: number; onProbation: boolean; why: string }>();

  /** A lease of its is overdue, or its answer could not count. */
  charge(name: string, why: string): void {
    const { debt, onProbation } = this.#debts.get(name) ?? { debt: 0, onProbation: false };
    this.#set(name, { debt: debt + 1, onProbation: onProbation || debt + 1 >= most, why });
  }

  /** It answered in time, and rightly. */
  credit(name: string): void {
    const seen = this.#debts.get(name);
    if (!seen) return;
    const debt = seen.debt - repaid;
    if (debt <= 0) this.#debts.delete(name);
    else this.#set(name, { ...seen, debt });
  }

  /** Why it is on probation; undefined where it is not. */
  probation(name: string): string | undefined {
    const seen = this.#debts.get(name);
    return seen?.onProbation ? seen.why : undefined;
  }

  #set(name: string, value: { debt: number; onProbation: boolean; why: string }): void {
    this.#debts.delete(name);
    this.#debts.set(name, value);
    if (this.#debts.size > remembered) this.#debts.delete(this.#debts.keys().next().value!);
  }
}
