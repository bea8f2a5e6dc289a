"""Hold what Weft read of mutated files (npm run fuzz -- --dump DIR) against the libraries that these files belong to."""
import glob
import io
import json
import pickle
import sys

import numpy
import safetensors

reader, folder = sys.argv[1:]


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name} is code")


def of_safetensors(data):
    tensors = safetensors.deserialize(data)
    return sorted([name, {"dtype": t["dtype"], "shape": t["shape"], "bytes": bytes(t["data"]).hex()}] for name, t in tensors)


def of_tokens(data, value):
    dtype = f"<u{value['width']}"
    if data.startswith(b"\x93NUMPY"):
        ids = numpy.load(io.BytesIO(data), allow_pickle=False)
        assert ids.dtype.kind in "ui" and ids.dtype.itemsize == value["width"], ids.dtype
    else:
        ids = numpy.frombuffer(data, dtype, offset=len(data) - value["width"] * len(value["ids"]))
    return {"width": value["width"], "ids": ids.ravel().tolist()}


def of_pickle(data):
    itos = PlainUnpickler(io.BytesIO(data)).load()["itos"]
    return [itos[i] for i in range(len(itos))]


# Python's readers of .npy and pickle take more than they need to write; safetensors' documentation refuses duplicates.
stricter = ("twice; which one counts", "is NaN", "is Infinity", "is -Infinity", "__metadata__", "can be", "its shape is",
            "data_offsets are", "is not an object", "written in digits", "half a character")
read = refused = 0
for path in glob.glob(f"{folder}/*.json"):
    outcome = json.load(open(path))
    data = open(path.removesuffix(".json") + "-" + outcome["target"], "rb").read()
    if "value" in outcome:
        value = outcome["value"]
        try:
            expected = of_safetensors(data) if reader == "safetensors" else of_pickle(data) if reader == "meta-pkl" else of_tokens(data, value)
        except Exception as error:
            sys.exit(f"{path}: Weft reads what the library refuses: {error}")
        if value != expected:
            sys.exit(f"{path}: Weft reads {value}, the library {expected}")
        read += 1
    else:
        refused += 1
        if reader != "safetensors" or any(word in outcome["refused"] for word in stricter):
            continue
        try:
            of_safetensors(data)
        except Exception:
            continue
        sys.exit(f"{path}: Weft refuses what the library takes: {outcome['refused']}")
if read < 100 or refused < 100:
    sys.exit(f"{reader}: {read} read and {refused} refused prove nothing")
print(f"{reader}: {read} files read to the library's values, {refused} refused")
