// A script on another machine, by the system's own ssh, or on this one. The script comes by standard input, which stays
// open as long as it may run: its end, whoever closed it, ends what the script started. So nothing is left on a host
// when this program, the connection or this machine goes; and no secret stands in a list of processes.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

export interface Ssh {
  /** A file for `ssh -F`. */
  readonly config?: string | undefined;
  /** Folder of the sockets by which several scripts share a connection (ControlMaster). */
  readonly sockets: string;
}

/** A connection that is silent for so long is lost: three questions, five seconds each. */
const keepAlive = ["-oServerAliveInterval=5", "-oServerAliveCountMax=3"];

/** What ssh itself exits with; a program on the host has its own numbers. */
export const connectionLost = 255;

function sshArguments({ config, sockets }: Ssh): string[] {
  return [
    ...(config === undefined ? [] : ["-F", config]),
    ...["-T", "-oBatchMode=yes", "-oConnectTimeout=10", ...keepAlive],
    ...["-oControlMaster=auto", `-oControlPath=${sockets}/%C`, "-oControlPersist=30"],
  ];
}

/** Text as one word of a shell's. */
export const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

/** Lines that run a command until it ends, or standard input does: then it is asked to end, and later made to. */
export function untilInputEnds(command: string, graceSeconds: number): string {
  return `exec 3<&0
${command} </dev/null 3<&- &
child=$!
{ cat <&3; kill -TERM $child; sleep ${graceSeconds}; kill -KILL $child; } >/dev/null 2>&1 &
watch=$!
wait $child
status=$?
kill $watch 2>/dev/null
exit $status`;
}

export interface Script {
  readonly child: ChildProcess;
  /** Its exit status; a signal counts as 128. */
  readonly ended: Promise<number>;
  /** Ask what it runs to end. */
  stop(): void;
}

/**
 * @param host as in `ssh HOST`, or undefined for this machine
 * @param script lines for sh
 * @param onLine hears of every line that it writes, to either output; without it the caller reads child.stdout
 */
export function runScript(ssh: Ssh, host: string | undefined, script: string, onLine?: (line: string) => void): Script {
  const [program, words] = host === undefined ? ["sh", []] : ["ssh", [...sshArguments(ssh), "--", host, "sh"]];
  // Its own session: Ctrl-C on the terminal reaches this program alone, which then asks each script once.
  const child = spawn(program, words as string[], { stdio: ["pipe", "pipe", "pipe"], detached: true });
  child.stdin.on("error", () => {}); // it may have ended before it read
  // As one command the shell reads it to its end before it begins: what follows on standard input is not its own.
  child.stdin.write(`{\n${script}\n}\nexit\n`);
  if (onLine) for (const output of [child.stdout, child.stderr]) createInterface({ input: output }).on("line", onLine);
  const ended = new Promise<number>((resolve) => {
    child.once("error", () => resolve(127)); // no ssh here
    child.once("close", (status) => resolve(status ?? 129));
  });
  return { child, ended, stop: () => void child.stdin.end() };
}

/** End the shared connection to a host. */
export async function disconnect(ssh: Ssh, host: string): Promise<void> {
  const words = [...sshArguments(ssh), "-O", "exit", "--", host];
  const child = spawn("ssh", words, { stdio: "ignore" });
  await new Promise((resolve) => child.once("error", resolve).once("close", resolve));
}
