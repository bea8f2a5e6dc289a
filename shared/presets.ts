// Ready settings by name: what a preset says beats the defaults of the table and loses to everything that is asked for.
import type { Options } from "./config.ts";

/** Ready settings: nanoGPT's two for Shakespeare, GPT-2's four sizes (Radford et al. 2019, table 2), GPT-1, a bigram. */
export const presets: Readonly<Record<string, { about: string; options: Partial<Options> }>> = {
  "shakespeare-cpu": {
    about: "nanoGPT's CPU setting: 0.8M parameters, minutes on a laptop",
    options: {
      blockSize: 64,
      nLayer: 4,
      nHead: 4,
      nEmbd: 128,
      bias: false,
      dropout: 0,
      activation: "gelu",
      batchSize: 12,
      shards: 4,
      steps: 2000,
      evalInterval: 500,
      checkpointInterval: 500,
      learningRate: 1e-3,
      minLearningRate: 1e-4,
      warmupSteps: 100,
      beta2: 0.99,
    },
  },
  "shakespeare-char": {
    about: "nanoGPT's GPU setting: 10.7M parameters",
    options: {
      blockSize: 256,
      nLayer: 6,
      nHead: 6,
      nEmbd: 384,
      bias: false,
      dropout: 0.2,
      activation: "gelu",
      batchSize: 64,
      shards: 8,
      steps: 5000,
      evalInterval: 250,
      checkpointInterval: 250,
      learningRate: 1e-3,
      minLearningRate: 1e-4,
      warmupSteps: 100,
      beta2: 0.99,
    },
  },
  ...Object.fromEntries(
    (
      [
        ["gpt2-124m", 12, 12, 768],
        ["gpt2-355m", 24, 16, 1024],
        ["gpt2-774m", 36, 20, 1280],
        ["gpt2-1558m", 48, 25, 1600],
      ] as const
    ).map(([name, nLayer, nHead, nEmbd]) => [
      name,
      {
        about: `GPT-2, ${nLayer} layers, ${nEmbd} wide`,
        options: {
          tokenizer: "gpt2",
          precision: "bf16",
          blockSize: 1024,
          nLayer,
          nHead,
          nEmbd,
          batchSize: 480,
          shards: 32,
          steps: 600_000,
          warmupSteps: 2000,
          evalInterval: 1000,
          evalWindows: 512,
          checkpointInterval: 1000,
        } satisfies Partial<Options>,
      },
    ]),
  ),
  "gpt1-117m": {
    about: "GPT-1 (Radford et al. 2018): post-norm, exact GELU",
    options: {
      family: "gpt1",
      blockSize: 512,
      nLayer: 12,
      nHead: 12,
      nEmbd: 768,
      dropout: 0.1,
      activation: "gelu",
      tokenizer: "gpt2",
      batchSize: 64,
      shards: 16,
      steps: 100_000,
      beta2: 0.999,
      weightDecay: 0.01,
      learningRate: 2.5e-4,
      minLearningRate: 0,
      warmupSteps: 2000,
      evalInterval: 1000,
      evalWindows: 512,
    },
  },
  bigram: {
    about: "a table of token pairs",
    options: {
      family: "bigram",
      blockSize: 8,
      nLayer: 0,
      nHead: 0,
      nEmbd: 0,
      batchSize: 32,
      shards: 4,
      steps: 3000,
      schedule: "constant",
      learningRate: 1e-2,
      warmupSteps: 0,
      beta2: 0.999,
      weightDecay: 0.01,
      gradientClip: 0,
    },
  },
};

/** What a run is where nothing is said about the model: something to look at within a minute. */
export const defaultPreset = "shakespeare-cpu";
