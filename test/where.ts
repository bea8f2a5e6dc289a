// Tests that need what a machine may lack. A skip says why; what can be had is not missing in CI.
import { expect, test } from "vitest";

type Register = (name: string, run: () => void | Promise<void>) => void;

/** `test` where it can run; else a skip that says what it needs, and in CI a failure. */
export function testWhere(there: boolean, needs: string): Register {
  return (name, run) => {
    if (there) test(name, run);
    else if (process.env.CI) test(name, () => expect.fail(`needs ${needs}`));
    else test.skip(`${name} (skipped: needs ${needs})`, run);
  };
}

/** `test` on a platform that has what is tested; else a skip, in CI too. */
export function testOn(here: boolean, platform: string): Register {
  return (name, run) => {
    if (here) test(name, run);
    else test.skip(`${name} (skipped: ${platform} only)`, run);
  };
}
