"""What torch's functions do to values, by their names in a forward pass: the one table that all traces ask."""

from __future__ import annotations

#: The tensor's own values, perhaps in another type or place in memory.
SAME = frozenset({"detach", "contiguous", "clone", "to", "float"})

#: The values in another shape or order.
RESHAPE = frozenset({"view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "expand"})

#: Some of the values.
PART = frozenset({"chunk", "split", "unbind", "__getitem__"})

#: Values of the input, perhaps several times, at other places.
SPREAD = frozenset({"max_pool2d", "_max_pool2d", "boolean_dispatch", "interpolate", "upsample"})

#: A look at a tensor, which computes nothing.
LOOK = frozenset({"__get__", "size", "dim"})

#: Functions whose results have their one input's values and no others.
MOVE = SAME | RESHAPE | PART | SPREAD

#: Functions with weights, and the axis of the output channels in these.
WEIGHTED = {"conv2d": 0, "conv_transpose2d": 1, "linear": 0}
