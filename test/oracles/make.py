#!/usr/bin/env python3
"""Makes the numbers of this folder with PyTorch (1.13 or later) and compares them with those that are here.

    python3 test/oracles/make.py [--write] [--shakespeare tinyshakespeare.txt]

Start weights (`param.*`) and inputs (`input.*`) are the file's own, drawn once; everything else is computed from them:
the tiny cases in float64, stored as float32. --write puts what was computed into the files. With --shakespeare the run of
nanoGPT's CPU setting is done too, in float32: its start is drawn as nanoGPT draws it (seed 1337), its 2,000 steps take
minutes, and its curve agrees as far as rounding lets it. Exits with 1 where something differs.
"""
import argparse
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

HERE = Path(__file__).parent


def read(path):
    """A safetensors file as (metadata, {name: tensor})."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    kinds = {"F32": np.float32, "I32": np.int32}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + at for at in entry["data_offsets"])
        values = np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return metadata, tensors


def write(path, metadata, tensors):
    header, pieces, at = {"__metadata__": metadata}, [], 0
    for name, tensor in tensors.items():
        piece = tensor.numpy().tobytes()
        kind = "I32" if tensor.dtype == torch.int32 else "F32"
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + len(piece)]}
        pieces.append(piece)
        at += len(piece)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(pieces))


def forward(weights, tokens, n_head, family):
    """(B, T) token ids to the last hidden state (B, T, C) and logits (B, T, V). Weights by Hugging Face's names, [in, out]."""
    (B, T), gpt1 = tokens.shape, family == "gpt1"
    root, wte, wpe = ("", "tokens_embed", "positions_embed") if gpt1 else ("transformer.", "wte", "wpe")
    get = lambda name: weights.get(root + name)
    embedding = get(f"{wte}.weight")
    x = embedding[tokens] + get(f"{wpe}.weight")[:T]
    C = x.shape[-1]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)

    def linear(x, name):
        bias = get(f"{name}.bias")
        return x @ get(f"{name}.weight") + (0 if bias is None else bias)

    def norm(x, name):
        return F.layer_norm(x, (C,), get(f"{name}.weight"), get(f"{name}.bias"), 1e-5)

    def attention(x, block):
        q, k, v = (
            part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in linear(x, f"{block}.attn.c_attn").split(C, -1)
        )
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(C // n_head)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return linear(mixed.transpose(1, 2).reshape(B, T, C), f"{block}.attn.c_proj")

    def mlp(x, block):
        return linear(F.gelu(linear(x, f"{block}.mlp.c_fc")), f"{block}.mlp.c_proj")

    for layer in range(sum(name.endswith("ln_1.weight") for name in weights)):
        block = f"h.{layer}"
        if gpt1:  # post-norm
            x = norm(x + attention(x, block), f"{block}.ln_1")
            x = norm(x + mlp(x, block), f"{block}.ln_2")
        else:
            x = x + attention(norm(x, f"{block}.ln_1"), block)
            x = x + mlp(norm(x, f"{block}.ln_2"), block)
    if not gpt1:
        x = norm(x, "ln_f")
    return x, x @ embedding.T


def loss_of(weights, tokens, targets, n_head, family):
    _, logits = forward(weights, tokens, n_head, family)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def learning_rate(step, o):
    """nanoGPT's: linear warm-up, then a cosine."""
    if step < o["warmup"]:
        return o["lr"] * (step + 1) / (o["warmup"] + 1)
    if step > o["decaySteps"]:
        return o["minLr"]
    along = (step - o["warmup"]) / (o["decaySteps"] - o["warmup"])
    return o["minLr"] + 0.5 * (1 + math.cos(math.pi * along)) * (o["lr"] - o["minLr"])


def train(weights, batches, o, n_head, family):
    """Yields loss and gradient norm of each step; weights change in place. Decay on tensors of two dimensions alone."""
    groups = [
        {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": o["weightDecay"]},
        {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    for step, (tokens, targets) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, o)
        loss = loss_of(weights, tokens, targets, n_head, family)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), o["clip"])
        optimizer.step()
        yield loss.item(), norm.item()


@torch.no_grad()
def greedy(weights, start, count, block, n_head, family):
    text = list(start)
    while len(text) < count:
        _, logits = forward(weights, torch.tensor([text[-block:]]), n_head, family)
        text.append(int(logits[0, -1].argmax()))
    return text


@torch.no_grad()
def beams(weights, start, width, count, n_head, family):
    held = [(0.0, list(start))]
    for _ in range(count):
        longer = []
        for score, text in held:
            _, logits = forward(weights, torch.tensor([text]), n_head, family)
            longer += [(score + p, text + [i]) for i, p in enumerate(logits[0, -1].log_softmax(-1).tolist())]
        held = sorted(longer, key=lambda beam: -beam[0])[:width]
    return [{"logProb": score, "tokens": text} for score, text in held]


def tiny(metadata, given):
    """What a tiny case's file holds beside start and inputs."""
    family, n_head = metadata["family"], int(metadata["nHead"])
    start = {name[6:]: t.double().requires_grad_() for name, t in given.items() if name.startswith("param.")}
    tokens, targets = (given[f"input.{name}"].long() for name in ("tokens", "targets"))
    hidden, logits = forward(start, tokens[0], n_head, family)
    loss = loss_of(start, tokens[0], targets[0], n_head, family)
    loss.backward()
    tensors = {f"grad.{name}": w.grad for name, w in start.items()}
    tensors["logits"] = logits
    if "hidden" in given:
        tensors["hidden"] = hidden
    weights = {name: w.detach().clone().requires_grad_() for name, w in start.items()}
    curve = list(train(weights, zip(tokens, targets), json.loads(metadata["optimizer"]), n_head, family))
    tensors |= {f"final.{name}": w for name, w in weights.items()}
    words = {"loss": loss.item(), "lossCurve": [x for x, _ in curve], "gradNorms": [norm for _, norm in curve]}
    if "greedy" in metadata:
        prompt = json.loads(metadata["greedy"])[:4]
        length, block = len(json.loads(metadata["greedy"])), int(metadata["blockSize"])
        words["greedy"] = greedy(start, prompt, length, block, n_head, family)
        words["beam4"] = beams(start, prompt, 4, 8, n_head, family)
    return words, {name: t.detach().float() for name, t in tensors.items()}


def nanogpt_start(V, T, C, L):
    """nanoGPT's start after torch.manual_seed(1337): modules as its GPT.__init__ makes and then initialises them."""
    torch.manual_seed(1337)
    wte, wpe = torch.nn.Embedding(V, C), torch.nn.Embedding(T, C)
    shapes = {"attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C), "mlp.c_fc": (C, 4 * C), "mlp.c_proj": (4 * C, C)}
    linears = {f"h.{l}.{n}": torch.nn.Linear(*s, bias=False) for l in range(L) for n, s in shapes.items()}
    head = torch.nn.Linear(C, V, bias=False)
    for module in (head, wpe, *linears.values(), head):  # the head's weight is the embedding's
        torch.nn.init.normal_(module.weight, std=0.02)
    for name, module in linears.items():
        if name.endswith("c_proj"):
            torch.nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * L))
    weights = {"wte.weight": head.weight, "wpe.weight": wpe.weight}
    for name, module in linears.items():
        weights[f"{name}.weight"] = module.weight.T.contiguous()
    norms = [f"h.{l}.ln_{i}" for l in range(L) for i in (1, 2)] + ["ln_f"]
    weights |= {f"{name}.weight": torch.ones(C) for name in norms}
    return {f"transformer.{name}": w.detach().clone().requires_grad_() for name, w in weights.items()}


def nanogpt(metadata, given, text):
    """nanoGPT's own run of its CPU setting: the start's matrices, the loss of every step, the loss on the rest."""
    V, T, C, L, n_head = (int(metadata[k]) for k in ("vocabSize", "blockSize", "nEmbd", "nLayer", "nHead"))
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[c] for c in text])
    cut = int(0.9 * len(ids))
    weights = nanogpt_start(V, T, C, L)
    tensors = {f"param.{name}": w.detach().clone() for name, w in weights.items() if ".h." in name and w.dim() > 1}
    window = lambda at: ids[at : at + T]
    batches = (
        (torch.stack([window(at) for at in row]), torch.stack([window(at + 1) for at in row]))
        for row in given["input.offsets"].tolist()
    )
    curve = []
    for loss, _ in train(weights, batches, json.loads(metadata["optimizer"]), n_head, "gpt2"):
        curve.append(loss)
        if len(curve) % 100 == 0:
            print(f"  step {len(curve)}: {loss:.4f}", flush=True)
    count = int(metadata["valWindows"])
    with torch.no_grad():
        losses = [
            loss_of(weights, window(at)[None], window(at + 1)[None], n_head, "gpt2").item()
            for at in range(cut, cut + count * T, T)
        ]
    return {"lossCurve": curve, "valLossAfter": sum(losses) / count}, tensors


def compare(name, words, tensors, metadata, given, is_exact):
    """Prints the largest differences. @return whether all of them are what rounding leaves"""
    worst = {}
    for key, tensor in tensors.items():
        far = (tensor - given[key]).abs()
        if key.startswith("final.") and key.endswith("c_attn.bias"):
            far[len(far) // 3 : 2 * len(far) // 3] /= 1000  # the keys' true gradient is zero: AdamW steps by its rounding
        kind = key.split(".")[0]
        worst[kind] = max(worst.get(kind, 0), far.max().item())
    good = all(far <= 1e-6 for far in worst.values())
    for key, value in words.items():
        had = json.loads(metadata[key])
        if key in ("greedy", "beam4"):
            picked = lambda x: x if key == "greedy" else [beam["tokens"] for beam in x]
            good &= picked(value) == picked(had)
            if key == "beam4":
                worst[key] = max(abs(a["logProb"] - b["logProb"]) for a, b in zip(value, had))
        elif is_exact or not isinstance(value, list):
            far = np.abs(np.asarray(value) - np.asarray(had)).max()
            worst[key] = far
            good &= far <= (1e-6 if is_exact else 2e-2)
        else:  # float32: rounding grows from step to step
            far = np.abs(np.asarray(value) - np.asarray(had))
            worst[key] = {"mean of 50": far[:50].mean(), "mean of 500": far[:500].mean(), "largest": far.max()}
            good &= far[:50].mean() <= 1e-3 and far[:500].mean() <= 2e-2
    print(f"{name}: {'as committed' if good else 'DIFFERENT'}; largest differences {worst}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put what was computed into the files")
    parser.add_argument("--shakespeare", type=Path, help="tinyshakespeare.txt, for nanoGPT's run")
    options = parser.parse_args()
    print("PyTorch", torch.__version__)
    good = True
    for path in sorted(HERE.glob("*.safetensors")):
        metadata, given = read(path)
        is_tiny = path.stem != "nanogpt-char-cpu"
        if is_tiny:
            words, tensors = tiny(metadata, given)
        elif options.shakespeare:
            words, tensors = nanogpt(metadata, given, options.shakespeare.read_text())
        else:
            print(f"{path.stem}: not made without --shakespeare")
            continue
        good &= compare(path.stem, words, tensors, metadata, given, is_tiny)
        if options.write:
            write(path, metadata | {k: json.dumps(v) for k, v in words.items()}, given | tensors)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
