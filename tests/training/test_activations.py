import copy
import io

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.overrides import TorchFunctionMode
from ultralytics import YOLO
from ultralytics.nn import modules
from ultralytics.nn.tasks import DetectionModel

import yolo_edgequant
from yolo_edgequant.errors import OptionError, UnsupportedModelError
from yolo_edgequant.training.activations import ACTIVATIONS, swap_activation
from yolo_edgequant.upstream.blocks import swapped

CLASSES = {
    "relu6": nn.ReLU6,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}
RECTIFIERS = (*CLASSES.values(), nn.Mish, nn.GELU)


def rectifiers(model):
    """The activation classes below a module, one entry for each place that holds one."""
    return [type(c) for m in model.modules() for c in m._modules.values() if type(c) in RECTIFIERS]


def places(model):
    return {(n, k): id(c) for n, m in model.named_modules() for k, c in m._modules.items()}


def outputs(model, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.eval()(torch.rand(1, 3, 64, 64))[0]


@pytest.fixture(scope="module")
def trained():
    from yolo_edgequant.demo.train import WEIGHTS

    return YOLO(WEIGHTS)


@pytest.fixture
def model(trained):
    return copy.deepcopy(trained)


def test_every_choice_is_tested():
    assert CLASSES.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("activation", CLASSES)
def test_a_swap_leaves_no_other_activation(model, activation):
    assert set(rectifiers(model.model)) == {nn.SiLU}
    before = outputs(model.model)
    swap = swap_activation(model, activation)
    assert set(rectifiers(model.model)) == {CLASSES[activation]}
    assert len([r for r in swap.rows if r.after]) == len(rectifiers(model.model))
    assert torch.equal(before, outputs(model.model)) == (activation == "silu")
    assert swapped(model.model) == activation


def test_leaky_relu_has_yolos_slope(model):
    swap_activation(model, "leaky_relu")
    assert {m.negative_slope for m in model.model.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


def test_other_models_and_upstreams_shared_activation_stay(model, trained):
    swap_activation(model, "relu6")
    assert type(modules.Conv.default_act) is nn.SiLU
    assert set(rectifiers(trained.model)) == {nn.SiLU}
    assert set(rectifiers(DetectionModel("yolov8n.yaml", verbose=False))) == {nn.SiLU}


def test_undo_puts_the_very_modules_back(model):
    before, yaml, content = places(model.model), model.model.yaml, copy.deepcopy(model.model.yaml)
    swap = swap_activation(model, "relu6")
    again = swap_activation(model, "relu")
    assert places(model.model) != before
    again.undo()
    assert swapped(model.model) == "relu6"
    swap.undo()
    swap.undo()
    assert places(model.model) == before
    assert model.model.yaml is yaml
    assert yaml == content


def test_a_prediction_before_the_swap_is_not_remembered(model):
    image = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()

    def boxes():
        return model.predict(image, imgsz=64, conf=1e-6, verbose=False)[0].boxes.data

    before = boxes()
    swap = swap_activation(model, "relu6")
    assert not torch.equal(before, boxes())
    swap.undo()
    assert torch.equal(before, boxes())


def test_the_choice_survives_copies_files_and_fusing(model, tmp_path):
    swap_activation(model, "relu6")
    expected = outputs(model.model)
    copied = copy.deepcopy(model.model)
    model.save(tmp_path / "swapped.pt")
    loaded = YOLO(tmp_path / "swapped.pt").model
    fused = copy.deepcopy(model.model).fuse(verbose=False)
    for other, tolerance in ((copied, 0), (loaded, 1e-4), (fused, 1e-3)):
        assert set(rectifiers(other)) == {nn.ReLU6}
        assert swapped(other) == "relu6"
        torch.testing.assert_close(outputs(other), expected, rtol=0, atol=tolerance * 64)


def test_a_swapped_file_loads_without_this_package(model, tmp_path):
    swap_activation(model, "hardswish")
    model.save(tmp_path / "swapped.pt")
    with yolo_edgequant.patched():
        yolo_edgequant.disable()
        loaded = YOLO(tmp_path / "swapped.pt").model
        rebuilt = DetectionModel(loaded.yaml, verbose=False)
    assert set(rectifiers(loaded)) == set(rectifiers(rebuilt)) == {nn.Hardswish}


class Functions(TorchFunctionMode):
    """Notes the activation functions that are called outside of the modules that are named after them."""

    def __init__(self, model):
        super().__init__()
        self.seen, self.stack = set(), []
        for module in model.modules():
            module.register_forward_pre_hook(lambda m, _: self.stack.append(m))
            module.register_forward_hook(lambda m, *_: self.stack.pop() and None)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "").rstrip("_")
        if name in {"silu", "relu", "relu6", "leaky_relu", "hardswish", "gelu", "sigmoid", "softmax", "hardtanh"}:
            owner = self.stack[-1]
            if not type(owner).__module__.startswith("torch.nn.modules.activation"):
                self.seen.add((type(owner).__name__, name))
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "architecture",
    ["yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8-ghost",
     "yolov9t", "yolov9e", "yolov10n", "yolo11n", "yolo12n", "yolo26n", "yolov8n-world", "rtdetr-resnet50"],
)  # fmt: skip
def test_nothing_hides_from_the_list(architecture):
    from ultralytics import RTDETR

    model = (RTDETR if architecture.startswith("rtdetr") else YOLO)(f"{architecture}.yaml").model.eval()
    swap = swap_activation(model, "relu6")
    assert set(rectifiers(model)) == {nn.ReLU6}
    listed = {(r.owner, r.before) for r in swap.rows if r.after is None}
    functions = Functions(model)
    with torch.no_grad(), functions:
        model(torch.rand(1, 3, 160, 160))
    missing = functions.seen - listed
    assert functions.seen, "there is something to hide"
    assert not missing


def test_the_flow_that_only_training_uses_is_left_alone():
    model = YOLO("yolo26n-pose.yaml").model
    flow = model.model[-1].flow_model
    before = rectifiers(flow)
    swap = swap_activation(model, "relu6")
    assert rectifiers(flow) == before != []
    assert not any("flow_model" in row.scope for row in swap.rows)


def test_the_table_says_what_was_swapped_where():
    swap = swap_activation(YOLO("yolov10n.yaml"), "relu6")
    console = Console(width=140, file=io.StringIO())
    console.print(swap.table())
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    assert ["0", "Conv", "SiLU", "ReLU6", "", "1"] in lines
    assert ["22", "RepVGGDW", "SiLU", "ReLU6", "", "1"] in lines
    assert ["10", "Attention", "softmax", "kept", "attention over positions", "1"] in lines
    assert ["23", "DFL", "softmax", "kept", "expectation over the bins of a side", "1"] in lines
    assert sum(int(line[-1]) for line in lines if line and line[-1].isdigit()) == len(swap.rows)


def test_what_cannot_be_swapped_is_refused(model, tmp_path):
    with pytest.raises(OptionError, match="activation='relu7' is not one of 'relu6', 'relu'") as raised:
        swap_activation(model, "relu7")
    assert "\n" not in str(raised.value)
    with pytest.raises(UnsupportedModelError, match="Linear holds no Ultralytics model"):
        swap_activation(nn.Linear(1, 1), "relu6")
    empty = DetectionModel({"nc": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": []}, verbose=False)
    empty.model[0].act = nn.Identity()
    with pytest.raises(UnsupportedModelError, match="no activation that could be swapped"):
        swap_activation(empty, "relu6")
