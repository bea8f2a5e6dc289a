// Who a worker is in a job: environments as real launchers make them (Slurm 22.05, Open MPI 5.0.11).
import { expect, test } from "vitest";
import { coordinatorFrom, gpuOf, placeOf } from "../../worker/place.ts";

const slurm = {
  SLURM_JOB_ID: "7",
  SLURM_STEP_ID: "0",
  SLURM_PROCID: "3",
  SLURM_LOCALID: "1",
  SLURM_NODEID: "1",
  SLURM_STEP_NUM_TASKS: "5",
  SLURM_STEP_TASKS_PER_NODE: "2(x2),1",
  SLURM_LAUNCH_NODE_IPADDR: "10.0.0.7",
};
const mpi = {
  OMPI_COMM_WORLD_RANK: "1",
  OMPI_COMM_WORLD_SIZE: "4",
  OMPI_COMM_WORLD_LOCAL_RANK: "1",
  OMPI_COMM_WORLD_LOCAL_SIZE: "2",
  PMIX_NAMESPACE: "prterun-login-1.cluster-18651@1",
};

test("srun and mpirun say who a task is, nobody else does", () => {
  expect(placeOf(slurm)).toEqual({
    about: "srun, task 3 of 5",
    rank: 3,
    localRank: 1,
    localSize: 2,
    launchHost: "10.0.0.7",
  });
  expect(placeOf(mpi)).toEqual({
    about: "mpirun, rank 1 of 4",
    rank: 1,
    localRank: 1,
    localSize: 2,
    launchHost: "login-1.cluster",
  });
  expect(placeOf({})).toBeUndefined();
  // The batch script of a job is no task.
  expect(placeOf({ SLURM_JOB_ID: "7", SLURM_PROCID: "0" })).toBeUndefined();
});

test("the coordinator is where the launcher was started, unless WEFT_COORDINATOR names another", () => {
  expect(coordinatorFrom(slurm, placeOf(slurm))?.url).toBe("ws://10.0.0.7:7070");
  expect(coordinatorFrom({ ...slurm, WEFT_PORT: "81" }, placeOf(slurm))?.url).toBe("ws://10.0.0.7:81");
  expect(coordinatorFrom(mpi, placeOf({ ...slurm, SLURM_LAUNCH_NODE_IPADDR: "fe80::1" }))?.url).toBe(
    "ws://[fe80::1]:7070",
  );
  expect(coordinatorFrom({ WEFT_COORDINATOR: "wss://a" }, placeOf(mpi))?.url).toBe("wss://a");
  expect(coordinatorFrom({}, undefined)).toBeUndefined();
});

test("tasks that share a machine take its GPUs in turn", () => {
  const place = placeOf(slurm)!;
  expect(gpuOf(place, "0,1", 8)).toBe("1");
  expect(gpuOf({ ...place, localRank: 4 }, undefined, 4)).toBe("0");
  // One is the launcher's choice already; a task alone on its machine drives what it is given.
  expect(gpuOf(place, "5", 8)).toBeUndefined();
  expect(gpuOf({ ...place, localSize: 1 }, undefined, 8)).toBeUndefined();
});
