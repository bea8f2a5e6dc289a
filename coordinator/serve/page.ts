// The page's files, in memory: what is in page/ and uPlot, which draws its curves. No name from outside is a path.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join } from "node:path";

export interface PageFile {
  readonly type: string;
  readonly body: string;
}

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

const own = ["index.html", "style.css", "main.js", "charts.js", "tables.js", "format.js", "icon.svg"];
const uPlot = { "uplot.js": "uplot/dist/uPlot.esm.js", "uplot.css": "uplot/dist/uPlot.min.css" };

const { resolve } = createRequire(import.meta.url);

/** By name, "index.html" among them. */
export const pageFiles: ReadonlyMap<string, PageFile> = new Map(
  [
    ...own.map((name) => [name, join(import.meta.dirname, "page", name)] as const),
    ...Object.entries(uPlot).map(([name, module]) => [name, resolve(module)] as const),
  ].map(([name, path]) => [name, { type: types[extname(name)]!, body: readFileSync(path, "utf8") }]),
);

/** Only the page's own files may run or style it, and it asks only its own coordinator. */
export const pagePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");
