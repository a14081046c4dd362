"""What the claims of the devices' profiles are checked by, and three of them on the small detector."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests import profiles
from yolo_edgequant.inspection.model import Model, Node, Tensor
from yolo_edgequant.inspection.placing import Placed
from yolo_edgequant.options import Target
from yolo_edgequant.targets.devices import device
from yolo_edgequant.targets.placement import Place, Placement

CORAL = device("coral-edgetpu")
ON, CPU = Placement(Place.ACCELERATOR, ""), Placement(Place.CPU, "type float32")


def failed(checks):
    return [check.claim for check in checks if check.holds is False]


def model(outputs, scales=2, dtype="int8", source=(1, 64, 64, 3)):
    """A file of one convolution, whose outputs have these shapes."""
    one = np.ones(1)
    tensors = (
        Tensor("input", source, dtype, one),
        Tensor("weights", (2, 3, 3, 3), "int8", np.ones(scales), constant=True),
        *(Tensor(f"output {i}", shape, dtype, one) for i, shape in enumerate(outputs)),
    )
    results = tuple(range(2, len(tensors)))
    nodes = (Node(0, "CONV_2D", 1, (0, 1), results, {}),)
    return Model(Path("a.tflite"), "tflite", tensors, nodes, (0,), results, 0, 54, 0, 0, {})


def test_every_profile_comes_to_options_whose_outputs_are_known():
    for name in Target:
        request = profiles.request_of(device(name))
        assert str(request.outputs) in profiles.SHAPES


def test_targets_with_the_same_options_share_a_file():
    assert profiles._key(device("nxp-imx8mp")) == profiles._key(device("nxp-imx93"))
    assert profiles._key(device("intel-cpu")) != profiles._key(device("intel-gpu"))  # NNCF is told which


@pytest.mark.parametrize(
    ("changed", "claims"),
    [
        ({}, []),
        ({"head": "int8"}, ["head=raw"]),
        ({"raw": SimpleNamespace(arrangement="merged")}, ["outputs=levels"]),
        ({"channels_last": False}, ["layout=NHWC"]),
        ({"target": None}, ["target"]),
    ],
    ids=["as chosen", "head", "outputs", "layout", "target"],
)
def test_metadata_is_held_against_what_was_chosen(changed, claims):
    facts = {"head": "raw", "granularity": "channel", "io": "int8", "raw": SimpleNamespace(arrangement="levels")}
    facts |= {"channels_last": True, "target": "coral-edgetpu", **changed}
    request = profiles.request_of(CORAL)
    assert failed(profiles.of_contract(SimpleNamespace(**facts), CORAL, request, ["coral-edgetpu"])) == claims


@pytest.mark.parametrize(
    ("changed", "claims"),
    [
        ({}, []),
        ({"outputs": [(1, 8, 8, 2)] * 6}, ["outputs=levels"]),
        ({"outputs": [(1, 64, 2)] * 2}, ["outputs=levels"]),
        ({"scales": 1}, ["granularity=channel"]),
        ({"source": (1, 3, 64, 64)}, ["layout NHWC"]),
        ({"dtype": "float32"}, ["io=int8", "head=raw", "all in integers"]),
    ],
    ids=["as chosen", "grid", "merged", "granularity", "layout", "float"],
)
def test_tensors_are_held_against_what_was_chosen(changed, claims):
    file = model(**{"outputs": [(1, 64, 2)] * 6, **changed})
    assert failed(profiles.of_tensors(file, CORAL, profiles.request_of(CORAL))) == claims


def test_all_has_to_be_on_the_accelerator_where_the_profile_says_that_it_works():
    request = profiles.request_of(CORAL)
    (check,) = profiles.of_placement(Placed(CORAL, (ON, ON), 1), "relu6", 320, request)
    assert check.holds
    (check,) = profiles.of_placement(Placed(CORAL, (ON, CPU), 1), "relu6", 320, request)
    assert check.holds is False
    assert "1 x type float32" in check.found
    assert profiles.of_placement(Placed(CORAL, (ON, ON), 2), "relu6", 320, request)[0].holds is False


def test_of_what_the_profile_does_not_say_works_nothing_is_claimed():
    request = profiles.request_of(CORAL)
    (check,) = profiles.of_placement(Placed(CORAL, (ON, CPU), 1), "leaky_relu", 320, request)
    assert check.holds is None
    _, size = profiles.of_placement(Placed(CORAL, (ON, ON), 1), "silu", 640, request)
    assert (size.claim, size.holds) == ("runs wholly up to 320 px", None)
    assert profiles.of_placement(Placed(device("axis-artpec"), (), 0), "silu", 640, request) == []


def test_weights_have_to_fit_into_the_memory():
    where = Placed(CORAL, (), 0)
    assert [check.holds for weights in (8_000_000, 8_000_001) for check in profiles.of_memory(weights, where)] == [
        True,
        False,
    ]
    assert profiles.of_memory(1, Placed(device("nxp-imx93"), (), 0)) == []


def test_a_head_that_is_said_to_leave_work_to_the_cpu_has_to():
    float_head, file = CORAL.cautions[0], model([(1, 64, 2)])
    said = replace(float_head, why="the 1 float operators of the head stay on the CPU")
    assert not profiles.of_caution(float_head, file, Placed(CORAL, (ON, ON), 1)).holds
    assert not profiles.of_caution(said, file, Placed(CORAL, (ON, CPU), 1)).holds  # it has none
    assert profiles.of_caution(said, model([(1, 64, 2)], dtype="float32"), Placed(CORAL, (ON, CPU), 1)).holds


def test_objects_are_matched_once_each_by_class_and_overlap():
    box = [0, 0, 10, 10, 0.9]
    theirs = [np.array([[*box, 1], [50, 50, 60, 60, 0.8, 1]], np.float32)]
    assert profiles.matched(theirs, theirs) == 2
    assert profiles.matched([np.array([[*box, 1], [*box, 1]], np.float32)], theirs) == 1
    assert profiles.matched([np.array([[*box, 0]], np.float32)], theirs) == 0
    assert profiles.matched([np.empty((0, 6), np.float32)], theirs) == 0


def test_the_table_names_what_contradicts_a_profile():
    bad = profiles.Check("head=raw", "metadata: int8", False)
    case = profiles.Case("coral-edgetpu", "silu", 640, Path("a"), "edgetpu raw", 5, 0, 1, 3_000_000, (9, 10), 0.9)
    case.checks = [bad, profiles.Check("all in integers", "0 float tensors", True)]
    said = profiles.table([case])
    assert "| 5 | 0 | 1 | 3.00 | 9 of 10 | 0.900 |  | 1 of 2 FAILED |" in said
    assert "- `coral-edgetpu`, silu: head=raw: metadata: int8 FAILED" in said


@pytest.mark.export
def test_three_profiles_hold_for_the_small_detector(tmp_path, shapes_model, shapes_data):
    images = sorted((Path(shapes_data).parent / "images").rglob("*.png"))[:14]
    assert len(images) == 14
    names = ["coral-edgetpu", "nxp-imx8mp", "intel-cpu"]
    out = tmp_path / "out"
    cases = profiles.check(names, shapes_model, images, out, 160, calibrated=8, swapped=(None,), cautions=False)
    assert [case.contradictions for case in cases] == [[], [], []]
    coral, imx, intel = cases
    assert (coral.cpu, coral.pieces) == (imx.cpu, imx.pieces) == (0, 1)
    assert intel.accelerator is None
    assert all(case.objects[1] > 5 and case.agreement > 0.5 for case in (coral, imx))
