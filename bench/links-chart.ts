// The picture of tokens a second against the speed of the link, in SVG: a panel for each setting and number of workers,
// both axes logarithmic; lines are predicted, dots measured, hollow ones with more workers than cores.
import type { Cell } from "./links.ts";

const [width, height, left, top, gapX, gapY] = [300, 220, 62, 78, 66, 62];
const heading =
  "Tokens a second by the speed of the link: lines as weft doctor predicts, dots as measured (hollow: with fewer cores than workers)";
const colours = ["#1b6ca8", "#2a9d8f", "#8a5cc2", "#e08a00", "#c23b4e"];
const text = (x: number, y: number, words: string, more = "") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${more}>${words}</text>`;
const rateName = (mbps: number) => (mbps >= 1000 ? `${mbps / 1000} Gbit/s` : `${mbps} Mbit/s`);

export function linksChart(cells: readonly Cell[], ways: readonly string[], cores: number): string {
  const panels = [...new Set(cells.map(({ setting, workers }) => `${setting} ${workers}`))].sort();
  const settings = [...new Set(cells.map(({ setting }) => setting))].sort();
  const counts = [...new Set(cells.map(({ workers }) => workers))].sort((a, b) => a - b);
  const total = [left + counts.length * (width + gapX), top + settings.length * (height + gapY)];
  const parts: string[] = [];
  for (const panel of panels) {
    const of = cells.filter(({ setting, workers }) => panel === `${setting} ${workers}`);
    const [{ setting, workers }] = of as [Cell];
    const x0 = left + counts.indexOf(workers) * (width + gapX);
    const y0 = top + settings.indexOf(setting) * (height + gapY);
    const shown = cells.filter((cell) => cell.setting === setting);
    const all = shown.flatMap(({ predicted, measured }) => [
      predicted.tokensPerSec,
      measured?.tokensPerSec ?? predicted.tokensPerSec,
    ]);
    const [low, high] = [Math.floor(Math.log10(Math.min(...all))), Math.ceil(Math.log10(Math.max(...all)))];
    const rates = [...new Set(shown.map(({ mbps }) => mbps))].sort((a, b) => a - b);
    const [from, to] = [Math.log10(rates[0]!), Math.log10(rates.at(-1)!)];
    const x = (mbps: number) => x0 + (width * (Math.log10(mbps) - from)) / Math.max(1, to - from);
    const y = (speed: number) => y0 + height - (height * (Math.log10(speed) - low)) / (high - low);
    const people = workers === 1 ? "1 worker" : `${workers} workers`;
    parts.push(text(x0, y0 - 8, `setting ${setting}, ${people}`, ' font-weight="bold"'));
    for (let power = low; power <= high; power++) {
      const at = y(10 ** power);
      parts.push(`<line x1="${x0}" y1="${at}" x2="${x0 + width}" y2="${at}" stroke="#ddd"/>`);
      parts.push(
        text(x0 - 6, at + 4, (10 ** power).toLocaleString("en", { notation: "compact" }), ' text-anchor="end"'),
      );
    }
    for (const mbps of rates) parts.push(text(x(mbps), y0 + height + 16, rateName(mbps), ' text-anchor="middle"'));
    for (const [i, way] of ways.entries()) {
      const line = of.filter((cell) => cell.way === way).sort((a, b) => a.mbps - b.mbps);
      if (line.length === 0) continue;
      const points = line.map((cell) => `${x(cell.mbps).toFixed(1)},${y(cell.predicted.tokensPerSec).toFixed(1)}`);
      parts.push(`<polyline points="${points.join(" ")}" fill="none" stroke="${colours[i]}" stroke-width="1.5"/>`);
      for (const { mbps, measured } of line)
        if (measured)
          parts.push(
            `<circle cx="${x(mbps).toFixed(1)}" cy="${y(measured.tokensPerSec).toFixed(1)}" r="4" ${workers > cores ? `fill="#fff" stroke="${colours[i]}"` : `fill="${colours[i]}"`}/>`,
          );
    }
  }
  const key = ways.map((way, i) => {
    const x = left + i * 130;
    return `<line x1="${x}" y1="44" x2="${x + 18}" y2="44" stroke="${colours[i]}" stroke-width="3"/>${text(x + 24, 48, way)}`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${total[0]}" height="${total[1]}" font-family="sans-serif" font-size="11" fill="#222">`,
    `<title>${heading}</title>`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    text(left, 22, heading, ' font-size="15"'),
    ...key,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}
