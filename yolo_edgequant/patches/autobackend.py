"""Inference on our files before 8.4.23, where one class of Ultralytics ran the files of every format.

A file of ours is run here by the interpreter of :mod:`yolo_edgequant.runtime`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ultralytics.nn.autobackend import AutoBackend

from .. import contract as contracts
from ..processes import usable_threads
from ..runtime import interpreter
from .backends import contract_of, finish, maps_first

#: Kinds of files, by Ultralytics' names, whose readers it treats in ways of their own.
_KINDS = ("engine", "imx", "jit", "nn_module", "onnx", "pb", "pt", "rknn", "saved_model", "triton")


def load(original: Callable[..., None], self: AutoBackend, *args: Any, **kwargs: Any) -> None:
    """``AutoBackend.__init__``, which opens a file of ours by its contract.

    Raises:
        ContractError: the file is damaged, or of a later version.
    """
    file = args[0] if args else kwargs.get("model", kwargs.get("weights"))
    metadata = contracts.metadata_of(Path(file)) if isinstance(file, (str, Path)) else {}
    if "edgequant" not in metadata:
        original(self, *args, **kwargs)
        return
    super(AutoBackend, self).__init__()
    self.interpreter, contract = interpreter.load(Path(file), usable_threads(), None)
    facts = metadata | {
        "stride": contract.stride,
        "names": contract.names,
        "end2end": contract.is_final,
        "kpt_shape": contract.kpt_shape,
        "edgequant": contract,
    }
    own = {"metadata": facts, "device": torch.device("cpu"), "ch": facts.get("channels", 3)}
    self.__dict__.update(facts | dict.fromkeys((*_KINDS, "dynamic", "fp16"), False) | own)


def forward(
    original: Callable[..., Any], self: AutoBackend, im: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor | list[torch.Tensor]:
    """``AutoBackend.forward``, by the contract if the file is ours."""
    contract = contract_of(self)
    if contract is None:
        return original(self, im, *args, **kwargs)
    values = im.cpu().numpy()
    values = values.transpose(0, 2, 3, 1) if contract.channels_last else values
    stored = self.interpreter.run(self.interpreter.input.stored(values))
    outputs = [tensor.values(output) for tensor, output in zip(self.interpreter.outputs, stored, strict=True)]
    outputs = finish(contract, maps_first(outputs) if contract.channels_last else outputs, tuple(im.shape[2:4]))
    tensors = [self.from_numpy(values) for values in outputs]
    return tensors[0] if len(tensors) == 1 else tensors
