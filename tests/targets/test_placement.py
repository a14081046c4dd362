import pytest

from yolo_edgequant.options import Target
from yolo_edgequant.targets import devices
from yolo_edgequant.targets.devices import device
from yolo_edgequant.targets.placement import Operator, Place, Placement, TensorFacts, partitions, place

ON, CPU = Placement(Place.ACCELERATOR, ""), Placement(Place.CPU, "so")


def tensor(*shape, dtype="int8", constant=False, scales=1):
    return TensorFacts(shape, dtype, constant, scales)


def operator(kind, *shapes, result=None, dtype="int8", version=1, **options):
    """An operator whose inputs have these shapes and whose output has that of the first."""
    inputs = tuple(tensor(*shape, dtype=dtype) for shape in shapes)
    return Operator(kind, version, inputs, (tensor(*(result or shapes[0]), dtype=dtype),), options)


def convolution(scales=1, **options):
    weights = tensor(64, 3, 3, 32, constant=True, scales=scales)
    inputs = (tensor(1, 80, 80, 32), weights, tensor(64, dtype="int32", constant=True, scales=scales))
    return Operator("CONV_2D", 3, inputs, (tensor(1, 80, 80, 64),), options)


def one(kind, name):
    (placement,) = place([kind], device(name))
    return (placement.place, placement.reason)


#: The operators of a raw YOLOv8 with ReLU6, at 320 pixels.
RAW = [
    convolution(fused_activation_function="RELU6", stride_h=2, stride_w=2),
    operator("SPLIT", (1, 80, 80, 32), result=(1, 80, 80, 16)),
    operator("ADD", (1, 80, 80, 16), (1, 80, 80, 16)),
    operator("CONCATENATION", (1, 80, 80, 16), (1, 80, 80, 16), result=(1, 80, 80, 32)),
    operator("MAX_POOL_2D", (1, 10, 10, 128), stride_h=1, stride_w=1),
    operator(
        *("RESIZE_NEAREST_NEIGHBOR", (1, 10, 10, 256)),
        **{"result": (1, 20, 20, 256), "version": 3, "half_pixel_centers": True},
    ),
    convolution(scales=64),
    operator("RESHAPE", (1, 40, 40, 64), result=(1, 1600, 64)),
]


@pytest.mark.parametrize("name", ["coral-edgetpu", "frigate-edgetpu", "nxp-imx8mp", "nxp-imx93"])
def test_a_raw_relu6_file_maps_whole(name):
    placements = place(RAW, device(name))
    assert placements == [ON] * len(RAW)
    assert partitions(placements) == 1


def test_silu_maps_as_two_operators():
    silu = [operator("LOGISTIC", (1, 80, 80, 32)), operator("MUL", (1, 80, 80, 32), (1, 80, 80, 32))]
    for name in ("coral-edgetpu", "nxp-imx8mp", "nxp-imx93"):
        assert place(silu, device(name)) == [ON, ON]


def test_the_softmax_of_dfl_is_on_no_edge_tpu():
    softmax = operator("SOFTMAX", (1, 4, 8400, 16))
    assert one(softmax, "coral-edgetpu") == ("cpu", "shape 1x4x8400x16: only 1 dimension may be over 1")
    assert one(softmax, "nxp-imx93") == one(softmax, "nxp-imx8mp") == ("accelerator", "")
    assert one(operator("SOFTMAX", (1, 16000)), "coral-edgetpu") == ("accelerator", "")
    assert one(operator("SOFTMAX", (1, 16001)), "coral-edgetpu") == ("cpu", "16001 elements are over 16000")


def test_attention_is_on_no_edge_tpu():
    product = operator("BATCH_MATMUL", (1, 2, 400, 32), (1, 2, 32, 400), result=(1, 2, 400, 400))
    assert one(product, "coral-edgetpu") == ("cpu", "BATCH_MATMUL is not among the operators of the Edge TPU")
    assert one(product, "nxp-imx93") == ("cpu", "BATCH_MATMUL is not among the operators of the Ethos-U65")
    assert one(product, "nxp-imx8mp") == ("accelerator", "")


@pytest.mark.parametrize("name", ["coral-edgetpu", "nxp-imx8mp", "nxp-imx93"])
def test_float_operators_stay_on_the_cpu(name):
    assert one(operator("MUL", (1, 4, 8400), (1, 4, 8400), dtype="float32"), name) == ("cpu", "type float32")


def test_what_constants_are_of_does_not_matter():
    assert one(convolution(), "coral-edgetpu")[0] == "accelerator"
    inputs = (tensor(1, 8, 8, 8), tensor(1, 3, 3, 8))
    weights = Operator("CONV_2D", 1, inputs, (tensor(1, 8, 8, 8),))
    assert one(weights, "coral-edgetpu") == ("cpu", "input 1 is not a constant")


def test_only_the_innermost_dimensions_on_the_edge_tpu():
    assert one(operator("ADD", (1, 1, 8, 8, 8)), "coral-edgetpu")[0] == "accelerator"
    assert one(operator("ADD", (2, 8, 8, 8)), "coral-edgetpu") == (
        *("cpu", "shape 2x8x8x8: only the 3 innermost dimensions may be over 1"),
    )


def test_a_fused_activation_where_there_may_be_none():
    pool = operator("MAX_POOL_2D", (1, 8, 8, 8), fused_activation_function="RELU6")
    assert one(pool, "coral-edgetpu") == ("cpu", "a fused activation (RELU6)")
    assert one(pool, "nxp-imx93")[0] == "accelerator"


def test_versions_of_an_operator():
    resize = operator("RESIZE_NEAREST_NEIGHBOR", (1, 8, 8, 8), result=(1, 16, 16, 8), version=4)
    assert one(resize, "coral-edgetpu") == ("cpu", "version 4 is above 3")


def test_shapes_that_are_open_are_refused_where_the_compiler_does():
    assert one(operator("ADD", (-1, 8, 8, 8)), "coral-edgetpu") == ("refused", "a shape is not fixed")
    assert one(operator("ADD", (-1, 8, 8, 8)), "nxp-imx93")[0] == "cpu"


def test_limits_of_the_ethos():
    assert one(operator("ADD", (1, 1, 8, 8, 8)), "nxp-imx93") == ("cpu", "5 dimensions are over 4")
    assert one(operator("ADD", (2, 8, 8, 8)), "nxp-imx93") == ("cpu", "the batch is not 1")
    assert one(operator("RESHAPE", (2, 8, 8, 8)), "nxp-imx93")[0] == "accelerator"
    assert one(operator("ADD", (1, 65536, 8)), "nxp-imx93") == (
        "cpu",
        "shape 1x65536x8: dimensions are from 1 to 65535",
    )
    assert one(operator("ADD", (1, 65535, 8)), "nxp-imx93")[0] == "accelerator"
    assert one(operator("MAX_POOL_2D", (1, 8, 8, 8), stride_h=4), "nxp-imx93") == ("cpu", "stride 4 is over 3")
    assert one(operator("ADD", (1, 8), dtype="int32"), "nxp-imx93")[0] == "accelerator"
    assert one(operator("MAXIMUM", (1, 8), dtype="int32"), "nxp-imx93") == ("cpu", "type int32")


def test_scales_for_each_channel_are_for_convolutions_on_the_ethos():
    assert one(convolution(scales=64), "nxp-imx93")[0] == "accelerator"
    inputs = (tensor(1, 64), tensor(8, 64, constant=True, scales=8))
    dense = Operator("FULLY_CONNECTED", 1, inputs, (tensor(1, 8),))
    assert one(dense, "nxp-imx93") == ("cpu", "FULLY_CONNECTED with a scale for each channel")
    assert one(dense, "coral-edgetpu")[0] == "accelerator"


@pytest.mark.parametrize(
    ("kind", "result", "half_pixel", "expected"),
    [
        ("RESIZE_NEAREST_NEIGHBOR", (1, 16, 16, 8), True, "accelerator"),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 64, 64, 8), False, "accelerator"),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 24, 24, 8), False, "cpu"),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 16, 32, 8), False, "cpu"),
        ("RESIZE_BILINEAR", (1, 32, 32, 8), False, "accelerator"),
        ("RESIZE_BILINEAR", (1, 16, 16, 8), True, "accelerator"),
        ("RESIZE_BILINEAR", (1, 32, 32, 8), True, "cpu"),
        ("RESIZE_BILINEAR", (1, 8, 8, 8), False, "accelerator"),
    ],
)
def test_resizing_on_the_ethos(kind, result, half_pixel, expected):
    resize = operator(kind, (1, 8, 8, 8), result=result, half_pixel_centers=half_pixel)
    assert one(resize, "nxp-imx93")[0] == expected


@pytest.mark.parametrize(
    ("shape", "result", "axes", "expected"),
    [
        ((8, 4, 2), (4, 8, 2), None, "accelerator"),
        ((1, 4, 2), (1, 2, 4), None, "accelerator"),
        ((8, 4, 2), (8, 2, 4), None, "cpu"),
        ((8, 1, 2), (2, 1, 8), None, "accelerator"),
        ((1, 8, 4, 2), (1, 4, 8, 2), None, "accelerator"),
        ((1, 80, 40, 64), (1, 64, 80, 40), None, "cpu"),  # the convolutions' outputs to channels first
        ((1, 4, 16, 8400), (1, 4, 8400, 16), None, "cpu"),  # before DFL's SOFTMAX
        ((1, 80, 80, 80), (1, 80, 80, 80), None, "accelerator"),  # shapes do not tell, and one reading is allowed
        ((1, 80, 80, 80), (1, 80, 80, 80), (0, 3, 1, 2), "cpu"),
        ((1, 80, 80, 80), (1, 80, 80, 80), [0, 2, 1, 3], "accelerator"),
        ((8, 4, 2), (4, 8, 2), [0, 0, 7], "cpu"),  # no permutation
    ],
)
def test_transposes_on_the_ethos(shape, result, axes, expected):
    options = {} if axes is None else {"permutation": axes}
    assert one(operator("TRANSPOSE", shape, result=result, **options), "nxp-imx93")[0] == expected


@pytest.mark.parametrize("kind", ["TOPK_V2", "CAST", "TILE", "PADV2", "WHERE", "ROUND"])
def test_what_the_vx_delegate_does_not_take(kind):
    assert one(operator(kind, (1, 8)), "nxp-imx8mp")[0] == "cpu"


def test_an_operator_that_nobody_lists_stays_on_the_cpu():
    assert one(operator("CUSTOM_THING", (1, 8)), "nxp-imx8mp")[0] == "cpu"


def test_devices_without_accelerator_or_without_a_list():
    add = operator("ADD", (1, 8))
    assert one(add, "raspberrypi") == ("cpu", "raspberrypi has no accelerator")
    for name in ("nxp-imx95", "axis-artpec", "intel-gpu", "intel-npu", "generic-int8"):
        assert one(add, name) == ("unknown", f"no list of {name}'s operators was read")
    assert {place([add], device(name))[0].place for name in Target} == {"accelerator", "cpu", "unknown"}


def test_an_operator_without_tensors_is_told_by_its_kind():
    for profile in devices.devices():
        for kind in profile.operators.by_kind if profile.operators else ():
            (placement,) = place([Operator(kind, 1, (), ())], profile)
            assert (placement.place == Place.ACCELERATOR) == profile.operators.by_kind[kind].accelerator


@pytest.mark.parametrize(
    ("pattern", "edges", "expected"),
    [
        ("", None, 0),
        ("---", None, 0),
        ("+++", None, 1),
        ("++-++", None, 2),
        ("-+-+-", None, 2),
        ("++-++", [(0, 1), (1, 2), (1, 3), (3, 4)], 1),  # what does not need the CPU's result comes in the first piece
        ("++-++", [(0, 1), (1, 2), (2, 3), (1, 4)], 2),
        ("-+-+", [(0, 1), (2, 3)], 1),  # what is ready for the CPU is done before
        ("+-+-+", [(0, 1), (1, 2), (2, 3), (3, 4)], 3),
    ],
)
def test_partitions_are_counted_as_tflite_makes_them(pattern, edges, expected):
    assert partitions([ON if sign == "+" else CPU for sign in pattern], edges) == expected


def test_a_cycle_is_an_error():
    with pytest.raises(ValueError, match="cycle"):
        partitions([ON, CPU], [(0, 1), (1, 0)])
