import pytest
from torch import nn
from ultralytics.nn.modules.block import DFL, Attention
from ultralytics.nn.modules.head import Detect, Segment

from yolo_edgequant.upstream import blocks


def test_a_choice_lives_in_the_yaml_and_leaves_the_old_one():
    yaml = {"nc": 4}
    recorded = blocks.recorded(yaml, "relu6", "ReLU6()")
    assert recorded == {"nc": 4, "activation": "torch.nn.ReLU6()", blocks.KEY: "relu6"}
    assert yaml == {"nc": 4}


@pytest.mark.parametrize("yaml", [None, "yolov8n.yaml", {}])
def test_a_model_with_its_own_activations(yaml):
    model = nn.Module()
    model.yaml = yaml
    assert blocks.swapped(model) is None
    assert blocks.swapped(nn.Module()) is None


def test_a_swapped_model_names_it():
    model = nn.Module()
    model.yaml = blocks.recorded({}, "hardswish", "Hardswish()")
    assert blocks.swapped(model) == "hardswish"


def test_what_a_block_calls_itself_is_listed_for_subclasses_too():
    assert [name for name, _ in blocks.hidden(Attention(64, num_heads=2))] == ["softmax"]
    assert [name for name, _ in blocks.hidden(DFL(16))] == ["softmax"]
    assert ("sigmoid", "scores of the head") in blocks.hidden(Detect(2, ch=(8,)))
    assert ("sigmoid", "scores of the head") in blocks.hidden(Segment(2, 4, 8, ch=(8,)))
    assert blocks.hidden(nn.Conv2d(1, 1, 1)) == []


def test_attention_is_found_wherever_it_is():
    assert blocks.has_attention(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(Attention(64, num_heads=2))))
    assert not blocks.has_attention(nn.Sequential(DFL(16), Detect(2, ch=(8,))))
