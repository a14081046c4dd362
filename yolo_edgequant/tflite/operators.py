"""What TFLite's operators do to values and scales, by TFLite's names: the one table that all else asks.

``tests/tflite/test_operators.py`` holds it against ai-edge-quantizer's own.
"""

from __future__ import annotations

#: Every value once, in another order or shape.
REORDER = frozenset({"TRANSPOSE", "RESHAPE"})

#: Some of the values.
SELECT = frozenset({"SLICE", "STRIDED_SLICE", "SPLIT"})

#: Values of the input, perhaps several times or with zeros among them, at other places.
SPREAD = frozenset({"MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "PAD"})

#: The values of several inputs.
JOIN = frozenset({"CONCATENATION"})

#: Operators that change no value: what reads their output reads their input.
MOVE = REORDER | SELECT | JOIN

#: Operators whose outputs have their one input's scale.
SAME_SCALE = REORDER | SELECT | SPREAD

#: Operators whose outputs have their inputs' values and no others.
CARRY = SAME_SCALE | JOIN

#: Operators whose results TFLite's kernels give a range of their own, whatever their values.
FIXED_RANGE = frozenset({"LOGISTIC", "SOFTMAX"})

#: Operators that take ``s x`` to ``s`` times what they take ``x`` to, for ``s`` above 0, channel by channel.
HOMOGENEOUS = frozenset({"PAD", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RELU", "LEAKY_RELU"})

#: Operators that multiply by weights, and the position of the weights among their inputs.
WEIGHTS_INPUT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}

#: Convolutions, and the axis of the output channels in their kernel.
CONVOLUTIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
