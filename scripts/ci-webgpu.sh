#!/usr/bin/env bash
# WebGPU on a machine without a GPU: Dawn (npm "webgpu") over SwiftShader, the Vulkan driver in software that
# @sparticuz/chromium carries (143.0.4 is the newest for Node 20): the whole contract suite and 500 steps without growth;
# 2 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

npm install --no-save --no-audit --no-fund webgpu@0.6.2 @tensorflow/tfjs-backend-webgpu@4.22.0
(
  cd "$folder"
  npm pack --silent @sparticuz/chromium@143.0.4
  tar -xzf sparticuz-chromium-143.0.4.tgz package/bin/swiftshader.tar.br
  node -e 'const { brotliDecompressSync } = require("node:zlib"), { readFileSync } = require("node:fs");
    process.stdout.write(brotliDecompressSync(readFileSync("package/bin/swiftshader.tar.br")))' | tar -x
)
export LD_LIBRARY_PATH="$folder" VK_DRIVER_FILES="$folder/vk_swiftshader_icd.json" WEFT_REQUIRE_WEBGPU=1

npx vitest run test/worker/engine/engine.webgpu.test.ts
