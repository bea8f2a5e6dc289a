// What messages travel through: a connection that keeps their order and borders. A WebSocket is one (web-socket.ts); the
// simulator's (test/simulator) is another.

export interface PipeEvents {
  message(data: Buffer): void;
  /** A sign of life that carries nothing: a ping that the pipe has answered by itself. */
  ping(): void;
  /** The answer to one of our pings, with what that carried. */
  pong(payload: string): void;
  /** Once; nothing comes after it. */
  closed(reason: string): void;
}

export interface Pipe {
  readonly isOpen: boolean;
  /** Bytes given to send() that have not left this process. */
  readonly queuedBytes: number;
  /** To be called once, before anything can have come in. */
  listen(events: PipeEvents): void;
  /** @param left called when the message has left this process, whose memory must not change until then, or cannot */
  send(message: Buffer, left: (error?: Error) => void): void;
  ping(payload: string): void;
  /** Let no more come in until resume(): what a peer sends waits at the peer. A few messages may still come. */
  pause(): void;
  resume(): void;
  /** Tell the peer why and close, after what was sent. */
  close(code: number, reason: string): void;
  /** Close now. */
  terminate(): void;
}

/** RFC 6455, section 5.5: what a close frame can say besides its code, in bytes. */
const longestCloseReason = 123;

/** A reason cut to what a close frame can hold, at the border of a character. */
export function closeReason(reason: string): string {
  const bytes = Buffer.from(reason);
  if (bytes.length <= longestCloseReason) return reason;
  return bytes
    .subarray(0, longestCloseReason - 3)
    .toString("utf8")
    .replace(/\ufffd$/, "")
    .concat("...");
}
