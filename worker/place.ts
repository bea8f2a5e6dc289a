// A worker that srun or mpirun started knows from its environment where the coordinator is, who it is among the others,
// and which share of the machine is its own. What is said by a flag is never overruled by it.

export interface Place {
  /** For people: "srun, task 3 of 8". */
  readonly about: string;
  /** Number of this task among all, from 0. */
  readonly rank: number;
  /** Number of this task among those on this machine, and how many they are. */
  readonly localRank: number;
  readonly localSize: number;
  /** The host on which srun or mpirun was started: the coordinator runs beside it. */
  readonly launchHost: string | undefined;
}

/** @returns undefined where nobody started this process as one of several */
export function placeOf(env: Readonly<NodeJS.ProcessEnv>): Place | undefined {
  const number = (name: string): number | undefined => (/^\d+$/.test(env[name] ?? "") ? Number(env[name]) : undefined);
  // Inside a step only: the batch script of a job has SLURM_PROCID too, and is no task.
  if (env.SLURM_STEP_ID !== undefined && number("SLURM_PROCID") !== undefined) {
    const rank = number("SLURM_PROCID")!;
    const node = number("SLURM_NODEID") ?? 0;
    return {
      about: `srun, task ${rank} of ${number("SLURM_STEP_NUM_TASKS") ?? number("SLURM_NTASKS") ?? 1}`,
      rank,
      localRank: number("SLURM_LOCALID") ?? 0,
      localSize: tasksPerNode(env.SLURM_STEP_TASKS_PER_NODE ?? "")[node] ?? 1,
      launchHost: env.SLURM_LAUNCH_NODE_IPADDR,
    };
  }
  const rank = number("OMPI_COMM_WORLD_RANK");
  if (rank === undefined) return undefined;
  return {
    about: `mpirun, rank ${rank} of ${number("OMPI_COMM_WORLD_SIZE") ?? 1}`,
    rank,
    localRank: number("OMPI_COMM_WORLD_LOCAL_RANK") ?? 0,
    localSize: number("OMPI_COMM_WORLD_LOCAL_SIZE") ?? 1,
    // Open MPI 5 calls its jobs after the host and process that started them: prterun-HOST-PID@1.
    launchHost: /^prterun-(.+)-\d+@\d+$/.exec(env.PMIX_NAMESPACE ?? "")?.[1],
  };
}

/** Slurm's "2(x3),1" as [2, 2, 2, 1]. */
function tasksPerNode(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [, tasks, nodes = "1"] = /^(\d+)(?:\(x(\d+)\))?$/.exec(part) ?? [];
    return tasks === undefined ? [] : Array<number>(Number(nodes)).fill(Number(tasks));
  });
}

/** Where the coordinator is, and who says so. */
export function coordinatorFrom(
  env: Readonly<NodeJS.ProcessEnv>,
  place: Place | undefined,
): { url: string; from: string } | undefined {
  if (env.WEFT_COORDINATOR) return { url: env.WEFT_COORDINATOR, from: "WEFT_COORDINATOR" };
  if (place?.launchHost === undefined) return undefined;
  const host = place.launchHost.includes(":") ? `[${place.launchHost}]` : place.launchHost;
  return { url: `ws://${host}:${env.WEFT_PORT || "7070"}`, from: `the host of ${place.about}` };
}

/** Tasks that share a machine take its GPUs in turn. @returns the value for CUDA_VISIBLE_DEVICES, or undefined: as it is */
export function gpuOf(place: Place, visible: string | undefined, found: number): string | undefined {
  if (place.localSize < 2) return undefined;
  const gpus = visible === undefined ? Array.from({ length: found }, (_, i) => String(i)) : visible.split(",");
  return gpus.length < 2 ? undefined : gpus[place.localRank % gpus.length];
}
