// Where Weft keeps what can be had again: downloads and builds.
import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** WEFT_CACHE_DIR, else weft/ in XDG_CACHE_HOME or ~/.cache. */
export function cacheDir(env: NodeJS.ProcessEnv = process.env): string {
  if (env.WEFT_CACHE_DIR) return resolve(env.WEFT_CACHE_DIR);
  return join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "weft");
}
