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
  /** Answers that could not count and that another gave rightly, of those who gave any. */
  readonly #wrong = new Map<string, number>();

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

  /** It gave what cannot count where another gave what does. @returns how often it has */
  countWrong(name: string): number {
    const count = (this.#wrong.get(name) ?? 0) + 1;
    this.#wrong.delete(name);
    this.#wrong.set(name, count);
    if (this.#wrong.size > remembered) this.#wrong.delete(this.#wrong.keys().next().value!);
    return count;
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
