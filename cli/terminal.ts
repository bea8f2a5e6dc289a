// The edge where words meet a terminal or a log. Many are others' words: a worker's name, a server's error, a file's
// strings, a model's text. A terminal obeys some characters (ECMA-48: title, clipboard, cursor): they are shown, never sent.
import { unseen } from "../shared/wire/names.ts";

const everyUnseen = new RegExp(unseen, "gu");

/** The text with \u001b for an escape character and so on. JSON stays JSON of the same value. @param kept go through */
export function printable(text: string, kept = "\n\t"): string {
  return text.replace(everyUnseen, (character) => {
    if (kept.includes(character)) return character;
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** The same on one line, so that others' words cannot pose as lines of ours. */
export function onOneLine(text: string): string {
  return printable(text.trim().replace(/\s*[\r\n]\s*/g, " "), "");
}

/** A line for people, on standard error. */
export function say(line: string): void {
  process.stderr.write(`${printable(line)}\n`);
}

/** A line of the result, on standard output. */
export function tell(line: string): void {
  process.stdout.write(`${printable(line)}\n`);
}

/** A text of a model on its way to standard output: line breaks (a \r before a \n too) and tabs stay, piece by piece. */
export class ModelText {
  readonly #raw: boolean;
  #held = "";

  /** @param raw every character as the model wrote it */
  constructor(raw = false) {
    this.#raw = raw;
  }

  write(piece: string): void {
    const text = this.#held + piece;
    this.#held = !this.#raw && text.endsWith("\r") ? "\r" : "";
    const ready = text.slice(0, text.length - this.#held.length);
    process.stdout.write(this.#raw ? ready : shown(ready));
  }

  end(): void {
    process.stdout.write(`${shown(this.#held)}\n`);
    this.#held = "";
  }
}

const shown = (text: string): string =>
  text
    .replace(/\r(?!\n)/g, "\\u000d")
    .split("\r\n")
    .map((line) => printable(line))
    .join("\r\n");
