import pytest

from yolo_edgequant.inspection.placing import operators, placed
from yolo_edgequant.inspection.reading import open_model
from yolo_edgequant.targets.devices import device
from yolo_edgequant.targets.placement import Place


def test_the_rules_are_asked_with_what_the_file_has(files):
    model = open_model(files["int8"])
    entries = operators(model)
    conv = next(entry for entry in entries if entry.kind == "CONV_2D")
    source, weights, bias = conv.inputs
    assert (source.dtype, source.constant, source.scales) == ("int8", False, 1)
    assert (weights.constant, weights.scales) == (True, weights.shape[0])
    assert bias.dtype == "int32"
    assert conv.options["fused_activation_function"] == "NONE"
    transpose = next(entry for entry in entries if entry.kind == "TRANSPOSE")
    assert len(transpose.options["permutation"]) == len(transpose.inputs[0].shape)


def test_a_raw_file_is_one_piece_on_the_edge_tpu(files):
    result = placed(open_model(files["raw"]), device("coral-edgetpu"))
    assert {placement.place for placement in result.placements} == {Place.ACCELERATOR}
    assert (result.partitions, result.parameters) == (1, 8_000_000)


def test_the_softmax_of_the_int8_head_stays_on_the_cpu(files):
    model = open_model(files["int8"])
    result = placed(model, device("coral-edgetpu"))
    away = [node for node, p in zip(model.nodes, result.placements, strict=True) if p.place != Place.ACCELERATOR]
    assert [node.kind for node in away] == ["SOFTMAX"]
    assert result.partitions == 2
    assert "dimension" in result.placements[away[0].index].reason


@pytest.mark.parametrize("name", ["intel-cpu", "raspberrypi"])
def test_a_device_without_an_accelerator(openvino_folder, name):
    result = placed(open_model(openvino_folder), device(name))
    assert {placement.place for placement in result.placements} == {Place.CPU}
    assert (result.partitions, result.parameters) == (0, None)
