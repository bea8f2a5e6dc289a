// Windows of T + 1 ids as engines take them: tokens and, one place further on, their targets.

/** @returns (rows, T) tokens and targets of the windows from `first` on */
export function splitWindows(windows: Uint16Array | Uint32Array, first: number, rows: number, T: number) {
  const tokens = new Int32Array(rows * T);
  const targets = new Int32Array(rows * T);
  for (let row = 0; row < rows; row++) {
    const start = (first + row) * (T + 1);
    tokens.set(windows.subarray(start, start + T), row * T);
    targets.set(windows.subarray(start + 1, start + 1 + T), row * T);
  }
  return { tokens, targets };
}
