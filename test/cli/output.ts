// What a command writes to standard output while it runs in this process.
import { vi } from "vitest";

export async function output(act: () => Promise<unknown>): Promise<string> {
  let text = "";
  const spy = vi.spyOn(process.stdout, "write").mockImplementation((piece) => {
    text += piece;
    return true;
  });
  try {
    await act();
  } finally {
    spy.mockRestore();
    process.exitCode = undefined;
  }
  return text;
}
