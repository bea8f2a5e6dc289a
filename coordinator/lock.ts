// One coordinator a run: a lock on the run's folder that ends with the process, however that ends. It is the kernel's
// flock(2), which also holds between containers and on NFS; Node has no call for it, so the flock program of util-linux
// or BusyBox takes it on a file that both processes have open. Without that program, or without locks there: a name that only one process can
// listen on (a Linux abstract socket, a Windows pipe); on macOS open(2) takes the lock itself.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants, type FileHandle, open, readdir, readFile, rmdir, stat, unlink } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { makeFolder, onDisk } from "../shared/disk.ts";
import { ConfigError } from "../shared/errors.ts";

const lockName = ".lock";
/** open(2) of macOS and the BSDs: O_EXLOCK, and O_NONBLOCK so that it does not wait. */
const exclusiveOpen = 0x20 | 0x4;

export interface RunLock {
  /** Once; a folder that holds nothing else goes with it. */
  release(): Promise<void>;
}

/**
 * Make a run's folder, where there is none, and lock it.
 * @throws ConfigError that names the process that has it
 */
export async function lockRun(directory: string): Promise<RunLock> {
  await makeFolder(directory);
  const path = join(directory, lockName);
  const held = async (): Promise<never> => {
    const owner = (await readFile(path, "utf8").catch(() => "")).trim();
    throw new ConfigError(
      `${directory} is in use by ${owner || "another process"}; stop that one, or choose another folder with --out`,
    );
  };
  const isBsd = process.platform === "darwin" || process.platform.endsWith("bsd");
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | (isBsd ? exclusiveOpen : 0);
  const file = await onDisk(path, "written", () => open(path, flags)).catch((error: Error) => {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return held();
    throw error;
  });
  let name: Server | undefined;
  try {
    const taken = isBsd || (process.platform === "linux" ? await flock(file) : undefined);
    if (taken === undefined) name = await listenAlone(directory);
    if (taken === false || (taken === undefined && !name)) await held();
    await onDisk(path, "written", async () => {
      await file.truncate(0);
      await file.write(`process ${process.pid} on ${hostname()}\n`, 0);
    });
  } catch (error) {
    await file.close();
    name?.close();
    throw error;
  }
  return {
    release: async () => {
      // Only a run that never began leaves nothing: the lock's file must otherwise stay the one that everybody locks.
      await rmdirIfOnlyLock(directory, path);
      await file.close();
      name?.close();
    },
  };
}

/** @returns whether the lock was taken; undefined where there is no flock program, or a file system without locks */
async function flock(file: FileHandle): Promise<boolean | undefined> {
  const program = spawn("flock", ["-n", "-x", "3"], { stdio: ["ignore", "ignore", "pipe", file.fd] });
  let said = "";
  (program.stderr as Readable).on("data", (data) => {
    said += data;
  });
  return await new Promise((resolve) => {
    program.on("error", () => resolve(undefined));
    // 1 without a word: held by another. BusyBox says 1 of everything else too, and why.
    program.on("close", (status) => resolve(status === 0 ? true : status === 1 && said === "" ? false : undefined));
  });
}

/** @returns undefined where another process of this machine listens on the name of this folder */
async function listenAlone(directory: string): Promise<Server | undefined> {
  const { dev, ino } = await stat(directory);
  const id = `weft-run-${dev}-${ino}`;
  const server = createServer((socket) => socket.destroy()).unref();
  server.listen(process.platform === "win32" ? `\\\\.\\pipe\\${id}` : `\0${id}`);
  try {
    await once(server, "listening");
    return server;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return undefined;
    throw error;
  }
}

async function rmdirIfOnlyLock(directory: string, path: string): Promise<void> {
  const names = await readdir(directory).catch(() => [""]);
  if (names.length !== 1 || names[0] !== lockName) return;
  await unlink(path).catch(() => {});
  await rmdir(directory).catch(() => {});
}
