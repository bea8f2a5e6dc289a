// What did not run, by name and reason, at the end of a run of the tests: a skip that nobody sees is none.
import type { Reporter, TestCase, TestModule } from "vitest/node";

export class Skipped implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const names = modules.flatMap(({ children }) => [...children.allTests("skipped")].map(nameOf));
    for (const name of new Set(names)) console.log(`not run: ${name}`);
  }
}

/** A group that is skipped as a whole says why itself. */
function nameOf(test: TestCase): string {
  let { name } = test;
  for (let at = test.parent; at.type === "suite"; at = at.parent) if (at.options.mode === "skip") name = at.name;
  return name;
}
