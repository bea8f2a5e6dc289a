// A curve in a few rows of a terminal, in Braille's dots: 2 x 4 of them in a character (Unicode 2800 to 28FF).

/** Bits of a character's dots, left and right column, from the top. */
const dots = [
  [0x01, 0x02, 0x04, 0x40],
  [0x08, 0x10, 0x20, 0x80],
];

/** Fewer are no curve. */
const leastPoints = 10;

/**
 * @param xs ascending, as many as ys; points that are not finite are left out
 * @returns `rows` lines with the highest and the lowest value at the left, and a line with the first and the last x;
 *   nothing for less than ten points
 */
export function plot(xs: readonly number[], ys: readonly number[], columns: number, rows: number): string[] {
  const points = xs.map((x, i) => ({ x, y: ys[i]! })).filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
  if (points.length < leastPoints) return [];
  const [first, last] = [points[0]!.x, points.at(-1)!.x];
  const margin = Math.max(...points.map(({ y }) => y.toFixed(2).length)) + 1;
  const width = Math.max(1, columns - margin);
  const means = meansOf(points, 2 * width);
  const [highest, lowest] = [Math.max(...means), Math.min(...means)];
  const dotRow = (y: number): number => Math.round(((highest - y) / (highest - lowest || 1)) * (4 * rows - 1));

  const cells = Array.from({ length: rows }, () => new Uint8Array(width));
  for (const [column, mean] of means.entries()) {
    const [row, before] = [dotRow(mean), dotRow(means[column - 1] ?? mean)];
    for (let dot = Math.min(row, before); dot <= Math.max(row, before); dot++)
      cells[dot >> 2]![column >> 1]! |= dots[column & 1]![dot & 3]!;
  }
  const lines = cells.map((cell, i) => {
    const label = i === 0 ? highest.toFixed(2) : i === rows - 1 ? lowest.toFixed(2) : "";
    const drawn = [...cell].map((bits) => (bits === 0 ? " " : String.fromCharCode(0x2800 + bits))).join("");
    return `${label.padStart(margin - 1)} ${drawn}`.trimEnd();
  });
  const [from, to] = [first.toLocaleString("en"), last.toLocaleString("en")];
  return [...lines, `${" ".repeat(margin)}${from}${`step ${to}`.padStart(width - from.length)}`];
}

/** The mean of the points that fall into each of `count` columns; a column without any lies between its neighbours. */
function meansOf(points: readonly { x: number; y: number }[], count: number): number[] {
  const [first, last] = [points[0]!.x, points.at(-1)!.x];
  const sums = Array.from({ length: count }, () => ({ sum: 0, n: 0 }));
  for (const { x, y } of points) {
    const column = sums[Math.min(count - 1, Math.floor(((x - first) / (last - first)) * count))]!;
    column.sum += y;
    column.n++;
  }
  const filled = sums.flatMap(({ sum, n }, column) => (n > 0 ? [{ column, mean: sum / n }] : []));
  let next = 0;
  return sums.map((_, column) => {
    while (filled[next]!.column < column) next++;
    const [after, before] = [filled[next]!, filled[Math.max(0, next - 1)]!];
    const span = after.column - before.column || 1;
    return before.mean + ((after.mean - before.mean) * (column - before.column)) / span;
  });
}
