"""GPT-2 in plain PyTorch, as nanoGPT trains it: bf16 autocast, fused attention, tied head.

`python3 gpt2.py '{"model": ..., "rows": 8, "steps": 20, "how": "eager" | "compiled", "device": "cuda" | "cpu"}'` prints
one line: the median milliseconds of forward and backward of one batch, and the peak of memory.
"""
import json
import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

asked = json.loads(sys.argv[1])
shape, rows, device = asked["model"], asked["rows"], asked["device"]
V, T, C, H = shape["vocabSize"], shape["blockSize"], shape["nEmbd"], shape["nHead"]
torch.manual_seed(1337)
torch.set_float32_matmul_precision("high")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        q, k, v = (part.view(*part.shape[:2], H, C // H).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(C, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks = nn.Sequential(*[Block() for _ in range(shape["nLayer"])])
        self.norm = nn.LayerNorm(C)

    def forward(self, ids, targets):
        x = self.tokens(ids) + self.positions(torch.arange(T, device=ids.device))
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, V), targets.view(-1))


model = Gpt().to(device)
for weight in model.parameters():
    if weight.dim() > 1:
        nn.init.normal_(weight, std=0.02)
step = torch.compile(model) if asked["how"] == "compiled" else model
ids = (torch.arange(rows * T, device=device) * 7919 % V).view(rows, T)


def measure():
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = step(ids, ids)
    loss.backward()
    model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


for _ in range(3):
    measure()
ms = statistics.median(measure() for _ in range(asked["steps"]))
peak = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peer": f"{torch.__version__} {asked['how']}", "rows": rows, "ms": ms, "peakBytes": peak}), flush=True)
