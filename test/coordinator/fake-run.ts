// A run that never computes: the status of one in the middle of its work, to be changed by the test that needs it.
import type { RunStatus, WorkerStatus } from "../../coordinator/status.ts";
import { protocolVersion } from "../../shared/wire/protocol.ts";

export function fakeWorker(id: string, changes: Partial<WorkerStatus> = {}): WorkerStatus {
  return {
    id,
    host: "127.0.0.1",
    device: "AVX-512, 1 thread",
    arithmetic: "native avx512 float32",
    state: "contributing",
    step: 250,
    probation: null,
    leasesHeld: 2,
    leaseProgress: null,
    leasesOwed: 0,
    shardsDone: 500,
    tokensPerSec: 20_480.5,
    utilisation: 0.875,
    bytesIn: 812_345_678,
    bytesOut: 912_345_678,
    roundTripMs: 0.75,
    connectedSeconds: 12.5,
    ...changes,
  };
}

export function fakeStatus(changes: Partial<RunStatus> = {}): RunStatus {
  return {
    run: { name: "shakespeare-cpu", id: "5f0c2a91", startedAt: "2026-01-02T03:04:05.000Z" },
    versions: { weft: "0.1.0", protocol: String(protocolVersion), node: "v20.20.2" },
    model: { summary: "gpt2, 4 layers, 4 heads, 128 wide, block 64, vocab 65", parameters: 804_096, blockSize: 64 },
    arithmetic: "native avx512 float32",
    state: "training",
    waitingFor: null,
    idleSeconds: 0.02,
    stallAfterSeconds: 30,
    step: 250,
    steps: 2000,
    tokens: 192_000,
    shards: 4,
    tokensPerStep: 768,
    lossNats: 2.34375,
    valLossNats: 2.4140625,
    bestValLossNats: 2.4140625,
    gradientNorm: 0.71875,
    learningRate: 0.000984375,
    tokensPerSec: 40_961,
    stepSeconds: 0.01875,
    etaSeconds: 32.8125,
    phaseSeconds: {
      compute: 0.0125,
      wire: 0.0005,
      sum: 0.001,
      apply: 0.0025,
      broadcast: 0.002,
      ledger: 0.0001,
      eval: 0.0005,
      checkpoint: 0.00025,
    },
    leases: { counted: 500, hedged: 3, lost: 2, refused: 1, confirmed: 0 },
    bytesIn: 1_624_691_356,
    bytesOut: 1_824_691_356,
    workers: [
      fakeWorker("a-1"),
      fakeWorker("a-2", { state: "connected", tokensPerSec: null, utilisation: null, roundTripMs: null }),
    ],
    gone: [],
    quarantined: [],
    checkpoints: [],
    samples: [],
    checkpointTrouble: null,
    diskFreeBytes: 50_000_000_000,
    weightsDigest: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ...changes,
  };
}
