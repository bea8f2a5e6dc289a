# What the real transformers makes of tokenizer folders: reads [{"folder": path, "texts": [text]}] from standard input and
# writes [{"ids": [[id]], "decoded": [text], "eos": id} or {"error": text}]. Called by
# test/system/tokenizers.system.ts; scripts/ci-transformers.sh makes the environments.
import json
import logging
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import transformers  # noqa: E402


def read(folder, texts):
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(text)["input_ids"] for text in texts]
        return {"ids": ids, "decoded": [tokenizer.decode(each) for each in ids], "eos": tokenizer.eos_token_id}
    except Exception as error:  # any refusal of theirs is an answer
        return {"error": f"{type(error).__name__}: {error}"[:300]}


print(json.dumps({"version": transformers.__version__, "answers": [read(**each) for each in json.load(sys.stdin)]}))
