// What a disk refuses, as a sentence for the person who can mend it: which file, what was wanted, the system's code and
// its meaning. Never a stack: a full disk is not our bug.
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError, messageOf } from "./errors.ts";

/** What may be mended outside, by the system's code. Other codes are bugs of ours and keep their stack. */
const meanings: Readonly<Record<string, string>> = {
  ENOSPC: "no space is left on the disk; make room",
  EDQUOT: "the disk quota is used up; make room",
  EFBIG: "the file system takes no file of this size",
  EACCES: "the rights of this user do not reach; change them or name another place",
  EPERM: "the system does not allow it to this user; name another place",
  EROFS: "the file system is read-only; name another place",
  EIO: "the disk reports an error; look at the system's log, and trust no copy without a check",
  ENOENT: "there is no such file or folder",
  ENOTDIR: "a part of this path is a file, not a folder",
  EISDIR: "it is a folder, not a file",
  EEXIST: "something else stands there; move it away",
  ENOTEMPTY: "it is a folder that is not empty; move it away",
  ELOOP: "it is a symbolic link where a file is expected, or links in a circle",
  ENAMETOOLONG: "the name is too long for the file system",
  EXDEV: "it lies on another file system",
  EBUSY: "it is in use by the system",
  ETXTBSY: "it is in use by a running program",
  ESTALE: "the network file system has lost it; mount it again",
  EMFILE: "too many files are open; raise ulimit -n",
  ENFILE: "too many files are open in the whole system",
  ENODEV: "the device is gone",
  ENXIO: "the device is gone",
};

const wanted: Readonly<Record<string, string>> = {
  mkdir: "written",
  mkdtemp: "written",
  write: "written",
  writev: "written",
  fsync: "written",
  fdatasync: "written",
  ftruncate: "written",
  rename: "moved into place",
  unlink: "removed",
  rmdir: "removed",
  rm: "removed",
  open: "opened",
};

/**
 * A system error as a ConfigError; anything else as it is.
 * @param path the file in the user's words, where the error does not know it
 * @param what was wanted: "written", "read"
 */
export function diskError(error: unknown, path?: string, what?: string): unknown {
  const { code, syscall, path: own } = error as NodeJS.ErrnoException;
  if (!(error instanceof Error) || code === undefined || syscall === undefined || !meanings[code]) return error;
  const verb = what ?? wanted[syscall] ?? "read";
  return new ConfigError(`${path ?? own ?? "a file"} cannot be ${verb} (${code}): ${meanings[code]}`, { cause: error });
}

/** Is it the disk that refused, and not what is on it, or missing there? */
export function isRefused({ cause }: Error): boolean {
  const { code, syscall } = (cause ?? {}) as NodeJS.ErrnoException;
  return syscall !== undefined && code !== "ENOENT";
}

/** Do something to a file. @throws ConfigError where the disk refuses */
export async function onDisk<T>(path: string, what: "written" | "read", act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw diskError(error, path, what);
  }
}

/** Make a folder and those above it. @throws ConfigError */
export async function makeFolder(path: string): Promise<void> {
  await onDisk(path, "written", () => mkdir(path, { recursive: true }));
}

/** A new folder for what is needed only now. @throws ConfigError */
export async function temporaryFolder(prefix: string): Promise<string> {
  return await mkdtemp(join(tmpdir(), prefix)).catch((error) => {
    throw new ConfigError(`${messageOf(diskError(error, tmpdir(), "written"))}; TMPDIR names another`, {
      cause: error,
    });
  });
}
