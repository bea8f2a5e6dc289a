// The class of an error says who has to act on it. Whatever is none of these is our own bug and ends the process
// with its stack.

/** The user has to act: the message alone is printed and the process ends with status 1. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** The peer broke the protocol: its socket is closed with this reason, training goes on. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

/** This worker cannot compute: it reports the reason and hands its lease back. */
export class EngineError extends Error {
  override readonly name = "EngineError";
}

/** Nor can it after a second try: its memory is too small, or nothing that was asked for works here. */
export class UnfitError extends EngineError {}

/** The connection broke, or the other side has no time: asking again may help. */
export class Interrupted extends Error {}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
