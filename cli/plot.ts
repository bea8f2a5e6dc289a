// A curve in a few rows of a terminal, in Braille's dots: 2 x 4 of them in a character (Unicode 2800 to 28FF).

/** Bits of a character's dots, left and right column, from the top. */
const dots = [
  [0x01, 0x02, 0x04, 0x40],
  [0x08, 0x10, 0x20, 0x80],
];

/**
 * @param xs ascending, as many as ys; points that are not finite are left out
 * @returns `rows` lines with the highest and the lowest value at the left, and a line with the first and the last x;
 *   nothing where there are not two points
 */
export function plot(xs: readonly number[], ys: readonly number[], columns: number, rows: number): string[] {
  const points = xs.map((x, i) => ({ x, y: ys[i]! })).filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last || last.x <= first.x) return [];
  const highest = points.reduce((most, { y }) => Math.max(most, y), Number.NEGATIVE_INFINITY);
  const lowest = points.reduce((least, { y }) => Math.min(least, y), Number.POSITIVE_INFINITY);
  const labels = [highest.toFixed(2), lowest.toFixed(2)];
  const margin = Math.max(...labels.map((label) => label.length)) + 1;
  const width = Math.max(1, columns - margin);
  const cells = Array.from({ length: rows }, () => new Uint8Array(width));

  // Every column of dots gets the mean of its points, joined to the column before.
  const sums = Array.from({ length: 2 * width }, () => ({ sum: 0, count: 0 }));
  for (const { x, y } of points) {
    const column = sums[Math.min(2 * width - 1, Math.floor(((x - first.x) / (last.x - first.x)) * 2 * width))]!;
    column.sum += y;
    column.count++;
  }
  const dotRow = (y: number): number => Math.round(((highest - y) / (highest - lowest || 1)) * (4 * rows - 1));
  let before: number | undefined;
  for (const [column, { sum, count }] of sums.entries()) {
    if (count === 0) continue;
    const row = dotRow(sum / count);
    const [from, to] = [Math.min(row, before ?? row), Math.max(row, before ?? row)];
    for (let dot = from; dot <= to; dot++) cells[dot >> 2]![column >> 1]! |= dots[column & 1]![dot & 3]!;
    before = row;
  }

  const left = (i: number): string => (i === 0 ? labels[0]! : i === rows - 1 ? labels[1]! : "").padStart(margin - 1);
  const lines = cells.map((row, i) => `${left(i)} ${String.fromCharCode(...[...row].map((bits) => 0x2800 + bits))}`);
  const ends = [first.x, last.x].map((x) => x.toLocaleString("en"));
  const axis = `${" ".repeat(margin)}${ends[0]}${ends[1]!.padStart(width - ends[0]!.length)}`;
  return [...lines, axis];
}
