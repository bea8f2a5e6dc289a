"""tiktoken under measurement: `python3 tiktoken_contestant.py TASK.json RANKS THREADS`.

Speaks the lines of tokenizer-contestant.ts: ready, then for each line the seconds in which it encoded the timed pieces.
GPT-2's merges come from a file, because tiktoken itself would download them.
"""
import array
import base64
import hashlib
import json
import sys
import time

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

with open(sys.argv[1], encoding="utf-8") as file:
    task = json.load(file)
with open(sys.argv[2], encoding="ascii") as file:
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file)}
threads = int(sys.argv[3])


def answer(value):
    print(json.dumps(value), flush=True)


answer({"ready": f"tiktoken {tiktoken.__version__}"})
for _ in sys.stdin:
    encoding = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    encoding.encode_ordinary_batch(task["before"], num_threads=threads)
    started, used = time.perf_counter(), time.process_time()
    ids = encoding.encode_ordinary_batch(task["timed"], num_threads=threads)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
    digest = hashlib.sha256()
    for some in ids:
        digest.update(array.array("i", some).tobytes())
    answer({"seconds": seconds, "cpuSeconds": cpu_seconds, "tokens": sum(map(len, ids)), "sha256": digest.hexdigest()})
