"""Runs one file on stored inputs in whatever TFLite interpreter is there; NumPy and the interpreter are all it needs.

Usage:
    python old_interpreter.py FILE INPUTS.npy OUTPUTS.npz [own]

With `own` the interpreter's own kernels run every operator, where it would hand some to XNNPACK by default.

It runs in Python 3.7 too, so its syntax is older than that of its neighbors. Inputs are (N, …), as the file stores
them. OUTPUTS.npz gets `0`, `1`, … for the outputs in the interpreter's order, each (N, …) as stored, and `facts`, JSON.
"""

import importlib
import json
import sys

import numpy as np


def interpreter(path, own):
    """The file in the interpreter that is installed."""
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite.python.interpreter"):
        try:
            module = importlib.import_module(name)
            break
        except ImportError:
            continue
    else:
        raise SystemExit("no TFLite interpreter is installed here")
    kinds = getattr(module, "OpResolverType", None)  # none before TensorFlow 2.5
    options = {"experimental_op_resolver_type": kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES} if own else {}
    return module.Interpreter(model_path=path, **options)


def main(path, inputs, target, own=""):
    """Run the file and write what came out."""
    model = interpreter(path, bool(own))
    model.allocate_tensors()
    (source,), outputs = model.get_input_details(), model.get_output_details()
    stored = [[] for _ in outputs]
    for image in np.load(inputs):
        model.set_tensor(source["index"], image[None])
        model.invoke()
        for place, output in zip(stored, outputs):  # noqa: B905 - older than strict=
            place.append(model.get_tensor(output["index"])[0])
    facts = {
        "quantization": [[float(output["quantization"][0]), int(output["quantization"][1])] for output in outputs],
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
    np.savez(target, facts=json.dumps(facts), **{str(i): np.stack(values) for i, values in enumerate(stored)})


if __name__ == "__main__":
    main(*sys.argv[1:])
