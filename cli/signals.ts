// SIGINT and SIGTERM: the first asks for a clean end, the second ends at once.

/** @param onFirst starts the clean end, which lets the process exit by itself with status 0 */
export function onStopSignal(onFirst: (signal: NodeJS.Signals) => void): void {
  let asked = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, () => {
      if (asked) process.exit(signal === "SIGINT" ? 130 : 143);
      asked = true;
      onFirst(signal);
    });
}
