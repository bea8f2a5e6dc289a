"""nanoGPT's model.py under measurement: `python3 nanogpt.py NANOGPT_DIR '{"setting": ..., "model": ..., ...}'`.

Speaks the lines of contestant.ts: ready, then for each {"steps": n} the seconds of n training steps (forward, backward,
clipping to norm 1, AdamW) and of their gradients alone, and for {"matmul": n} the best GFLOP/s of products of n x n matrices.
"""
import json
import os
import resource
import sys
import time

import torch

sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig  # noqa: E402  (karpathy/nanoGPT, named on the command line)

contest = json.loads(sys.argv[2])
shape = contest["model"]
torch.manual_seed(1337)
torch.set_num_threads(contest["threads"])


def answer(value):
    print(json.dumps(value), flush=True)


def matmul_gflops(n):
    dtype = torch.bfloat16 if contest["precision"] == "bf16" else torch.float32
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best / 1e9


# model.py prints what it builds on standard output, which carries our lines.
stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
config = GPTConfig(
    block_size=shape["blockSize"], vocab_size=shape["vocabSize"], n_layer=shape["nLayer"], n_head=shape["nHead"],
    n_embd=shape["nEmbd"], dropout=0.0, bias=shape["bias"],
)
model = GPT(config)
optimizer = model.configure_optimizers(weight_decay=0.1, learning_rate=1e-4, betas=(0.9, 0.95), device_type="cpu")
sys.stdout = stdout

count = contest["rows"] * shape["blockSize"]
stream = torch.tensor([(i * 7919 + i // 3) % shape["vocabSize"] for i in range(count + 1)])
tokens = stream[:-1].view(contest["rows"], -1)
targets = stream[1:].view(contest["rows"], -1)


def step():
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=contest["precision"] == "bf16"):
        _, loss = model(tokens, targets)
    loss.backward()
    computed = time.perf_counter()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started, computed - started


step()
step()
answer({"ready": f"PyTorch {torch.__version__} {contest['precision']}"})
for line in sys.stdin:
    asked = json.loads(line)
    if "matmul" in asked:
        answer({"gflops": matmul_gflops(asked["matmul"])})
    else:
        seconds, gradient_seconds = zip(*[step() for _ in range(asked["steps"])])
        answer({"seconds": seconds, "gradientSeconds": gradient_seconds, "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
