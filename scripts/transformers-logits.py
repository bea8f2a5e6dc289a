# Opens models with the real transformers, compares their logits with ours, and saves each again in shards for our
# reader. Arguments are directories with a Hugging Face model and expected.json: {"tokens": [ids],
# "logits": [[V] a position], "exactGelu": ...}. Exit 1 above the tolerance. Called by test/system/transformers.system.ts.
import json
import pathlib
import sys

import torch
import transformers

tolerance = 1e-4
print(f"transformers {transformers.__version__}, torch {torch.__version__}")
failed = False
for directory in map(pathlib.Path, sys.argv[1:]):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    model.eval()
    model.save_pretrained(directory / "again", max_shard_size="60KB")
    problems = {name: keys for name, keys in info.items() if keys}
    expected = json.loads((directory / "expected.json").read_text())
    if expected["exactGelu"]:  # their OpenAIGPT has the tanh approximation only
        for block in model.transformer.h:
            block.mlp.act = torch.nn.GELU()
    with torch.no_grad():
        logits = model(torch.tensor([expected["tokens"]])).logits[0]
    eos = expected.get("eos")
    # Later versions import torch.distributed.fsdp for generate(), which Debian's torch cannot.
    if eos is not None and transformers.__version__.startswith("4.38"):  # of texts that are drawn, some end, and stay ended
        torch.manual_seed(1337)
        start = torch.tensor([expected["tokens"][:1]] * 512)
        room = model.config.n_positions - 1
        drawn = model.generate(start, do_sample=True, max_new_tokens=room, top_k=0, pad_token_id=eos)[:, 1:]
        ended = (drawn == eos).cumsum(1) > 0
        if not ended.any() or not (drawn[ended] == eos).all():
            problems["generate"] = f"no text of {len(start)} ends with {eos}: {drawn[:4].tolist()}"
    difference = (logits - torch.tensor(expected["logits"])).abs()
    worst = int(difference.argmax())
    ok = float(difference.max()) <= tolerance and not problems
    failed |= not ok
    print(
        f"{'ok ' if ok else 'BAD'} {directory.name}: {type(model).__name__}, {tuple(logits.shape)} logits, "
        f"largest difference {float(difference.max()):.2e} at {worst}: theirs {float(logits.flatten()[worst]):.6f}",
        problems or "",
    )
sys.exit(failed)
