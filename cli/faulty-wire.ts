// A wire that breaks on purpose: a TCP proxy before one worker that can fall silent in one direction, or be cut.
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export class FaultyWire {
  readonly port: number;
  readonly #server: ReturnType<typeof createServer>;
  readonly #sockets: Set<Socket>;
  readonly #state: { muted: boolean; cut: boolean };

  private constructor(
    server: ReturnType<typeof createServer>,
    sockets: Set<Socket>,
    state: { muted: boolean; cut: boolean },
  ) {
    this.#server = server;
    this.#sockets = sockets;
    this.#state = state;
    this.port = (server.address() as AddressInfo).port;
  }

  /** @param target port on this machine, as it is when somebody connects */
  static async to(target: () => number): Promise<FaultyWire> {
    const sockets = new Set<Socket>();
    const state = { muted: false, cut: false };
    const server = createServer((near) => {
      if (state.cut) return void near.destroy();
      const far = connect(target(), "127.0.0.1");
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(from);
        from.on("data", (data: Buffer) => {
          if (from === near && state.muted) return; // what is swallowed never comes: a half-open connection
          if (!to.write(data)) from.pause();
        });
        to.on("drain", () => from.resume());
        from.on("error", () => from.destroy());
        from.on("close", () => {
          sockets.delete(from);
          to.destroy();
        });
      }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new FaultyWire(server, sockets, state);
  }

  /** What the worker says is swallowed, or no longer; what was swallowed has broken its conversation. */
  mute(on: boolean): void {
    this.#state.muted = on;
    if (!on) this.#drop();
  }

  /** Connections break, and none comes about until it is over. */
  cut(on: boolean): void {
    this.#state.cut = on;
    if (on) this.#drop();
  }

  close(): void {
    this.#drop();
    this.#server.close();
  }

  #drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
