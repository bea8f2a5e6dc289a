// A real object store on this machine, and a wire to it that can be slow, cut or dead.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./weft.ts";

/** Path of the versitygw program, which scripts/ci-s3.sh builds: S3 with real signatures over a folder. */
const program = process.env.WEFT_VERSITYGW;
const keys = { access: "weft-test-key", secret: "weft-test-secret" };
export const bucket = "weft";

export interface Wire {
  /** Bytes a second towards the store; 0: as fast as it goes. */
  bytesPerSec: number;
  /** Break the connection that carries this byte to the store, counted from now; -1: none. */
  cutAfter: number;
  /** Answer everything so, instead of passing it on. */
  refuseWith: string | undefined;
  /** Bytes that went to the store. */
  sent: number;
  /** Bytes that came from the store. */
  received: number;
}

export interface Store extends AsyncDisposable {
  /** Environment of a program that uses the store, by way of the wire. */
  readonly environment: Record<string, string>;
  readonly wire: Wire;
  /** Folder with the objects of the bucket as files. */
  readonly folder: string;
}

export async function startStore(): Promise<Store> {
  if (!program) throw new Error("WEFT_VERSITYGW is not set: start this test with scripts/ci-s3.sh");
  const root = mkdtempSync(join(tmpdir(), "weft-store-"));
  const folder = join(root, bucket);
  mkdirSync(folder);
  const port = await freePort();
  const flags = ["--port", `127.0.0.1:${port}`, "--access", keys.access, "--secret", keys.secret, "--quiet"];
  const server = spawn(program, [...flags, "posix", root], { stdio: ["ignore", "ignore", "inherit"] });
  await reachable(server, port);
  const wire: Wire = { bytesPerSec: 0, cutAfter: -1, refuseWith: undefined, sent: 0, received: 0 };
  const proxy = createServer((client) => carry(client, port, wire));
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return {
    wire,
    folder,
    environment: {
      AWS_ENDPOINT_URL: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
      AWS_ACCESS_KEY_ID: keys.access,
      AWS_SECRET_ACCESS_KEY: keys.secret,
      AWS_REGION: "us-east-1",
      // The machine's own settings must not meet the test's.
      AWS_CONFIG_FILE: "/dev/null",
      AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
      AWS_EC2_METADATA_DISABLED: "true",
    },
    async [Symbol.asyncDispose]() {
      proxy.close();
      const ended = once(server, "close");
      server.kill("SIGTERM");
      await ended;
      rmSync(root, { recursive: true });
    },
  };
}

async function reachable(server: ChildProcess, port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (server.exitCode !== null) throw new Error(`versitygw ended with ${server.exitCode}`);
    const socket = connect(port, "127.0.0.1");
    const isUp = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isUp) return;
    await sleep(100);
  }
  throw new Error("versitygw does not listen");
}

function carry(client: Socket, port: number, wire: Wire): void {
  client.on("error", () => client.destroy());
  if (wire.refuseWith !== undefined) {
    client.once("data", () => client.end(wire.refuseWith ?? ""));
    return;
  }
  const server = connect(port, "127.0.0.1");
  const close = (): void => {
    client.destroy();
    server.destroy();
  };
  server.on("error", close).on("close", close);
  client.on("close", close);
  server.on("data", (piece) => {
    wire.received += piece.length;
    client.write(piece);
  });
  client.on("data", (piece) => {
    if (wire.cutAfter >= 0) {
      wire.cutAfter -= piece.length;
      if (wire.cutAfter < 0) return close();
    }
    wire.sent += piece.length;
    if (wire.bytesPerSec > 0) {
      client.pause();
      setTimeout(() => client.resume(), (1000 * piece.length) / wire.bytesPerSec);
    }
    server.write(piece);
  });
}
