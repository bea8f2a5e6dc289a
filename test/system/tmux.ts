// A real terminal of a given size, with a shell in it, whose screen can be read: tmux on a socket of its own.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Where the screens go that a person looks at; none are kept without it. */
const kept = process.env.WEFT_SCREENS;

export interface Terminal extends Disposable {
  type(line: string): void;
  press(key: string): void;
  /** What is on the screen now, and what has scrolled off it before, without empty lines at the end. */
  lines(): string[];
  /** Wait until this stands somewhere. @throws Error with the whole screen after 60 s */
  until(wished: RegExp): Promise<string[]>;
  /** Keep the screen under a name. */
  keep(name: string): void;
  resize(columns: number, rows: number): void;
}

let made = 0;

/** The shell waits for its first command. */
export async function terminal(columns: number, rows: number): Promise<Terminal> {
  const socket = `weft-${process.pid}-${made++}`;
  const tmux = (...words: string[]): string =>
    execFileSync("tmux", ["-L", socket, "-f", "/dev/null", ...words], { encoding: "utf8" });
  const shell = "env -u npm_command PS1='$ ' bash --norc --noprofile";
  tmux("new-session", "-d", "-x", String(columns), "-y", String(rows), shell);
  const lines = (): string[] => tmux("capture-pane", "-p", "-S", "-").trimEnd().split("\n");
  const press = (key: string): void => void tmux("send-keys", key);
  const until = async (wished: RegExp): Promise<string[]> => {
    for (let tries = 0; tries < 600; tries++) {
      const now = lines();
      if (wished.test(now.join("\n"))) return now;
      await sleep(100);
    }
    throw new Error(`${wished} did not come; the screen:\n${lines().join("\n")}`);
  };
  await until(/^\$$/);
  return {
    press,
    lines,
    until,
    type(line) {
      tmux("send-keys", "-l", line);
      press("Enter");
    },
    keep(name) {
      if (kept === undefined) return;
      mkdirSync(kept, { recursive: true });
      writeFileSync(join(kept, `${name}.txt`), `${lines().join("\n")}\n`);
    },
    resize: (width, height) => void tmux("resize-window", "-x", String(width), "-y", String(height)),
    [Symbol.dispose]: () => void tmux("kill-server"),
  };
}
