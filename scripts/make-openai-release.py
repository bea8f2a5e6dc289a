# Makes test/fixtures/openai-release with the real TensorFlow: a GPT-2 release in miniature, as openai/gpt-2 saved
# theirs. Every value is a function of its variable's name and position, so that the test knows it without TensorFlow.
# pip install tensorflow-cpu==2.15.1 && python scripts/make-openai-release.py
import json
import os
import pathlib
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

V, T, C, L, H = 7, 3, 4, 11, 2
out = pathlib.Path(__file__).resolve().parent.parent / "test/fixtures/openai-release"
out.mkdir(parents=True, exist_ok=True)
os.chdir(out)  # so that the file "checkpoint" names no folder of this machine

shapes = {"wpe": [T, C], "wte": [V, C], "ln_f/g": [C], "ln_f/b": [C]}
for l in range(L):
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"h{l}/{norm}/g": [C], f"h{l}/{norm}/b": [C]}
    for name, i, o in (
        ("attn/c_attn", C, 3 * C),
        ("attn/c_proj", C, C),
        ("mlp/c_fc", C, 4 * C),
        ("mlp/c_proj", 4 * C, C),
    ):
        shapes |= {f"h{l}/{name}/w": [1, i, o], f"h{l}/{name}/b": [o]}


def values(name, shape):
    start = zlib.crc32(f"model/{name}".encode()) % 1000
    return (start + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)) / np.float32(1024)


with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope("model"):
        for name, shape in shapes.items():
            tf.get_variable(name, initializer=values(name, shape))
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, "./model.ckpt", write_meta_graph=False)

pathlib.Path("hparams.json").write_text(json.dumps({"n_vocab": V, "n_ctx": T, "n_embd": C, "n_head": H, "n_layer": L}))
