import subprocess
import sys

import numpy as np
import pytest

from tests import graphs
from yolo_edgequant import contract
from yolo_edgequant.demo.dataset import picture
from yolo_edgequant.errors import ContractError, InferenceError, MissingToolError, UnsupportedModelError
from yolo_edgequant.runtime import Detector


@pytest.fixture(scope="module")
def file(tmp_path_factory, detector):
    """Writes the committed detector as a float file, decoded or raw, with any contract."""

    def write(head="float", **more):
        path, facts = tmp_path_factory.mktemp("file") / "model.tflite", graphs.contract(head, io="float", **more)
        path.write_bytes(graphs.raw_detector(detector) if head == "raw" else detector)
        contract.append(path, facts, graphs.upstream(facts))
        return path

    return write


@pytest.fixture(scope="module")
def drawn():
    """A picture, (160, 160, 3) BGR, and its objects: classes, and corners in pixels."""
    image, shapes = picture(160, np.random.default_rng(29))
    return image, [shape.kind for shape in shapes], np.array([shape.box for shape in shapes])


@pytest.mark.parametrize("head", ["float", "raw"])
@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_drawn_is_found(file, drawn, head, scale):
    image, kinds, boxes = drawn
    wide = np.full((200 * scale, 160 * scale, 3), 90, np.uint8)  # as if more of the scene were below
    wide[: 160 * scale] = image.repeat(scale, 0).repeat(scale, 1)
    detections = Detector(file(head), conf=0.3)(wide)
    assert sorted(detections.classes) == sorted(kinds)
    assert (np.diff(detections.scores) <= 0).all(), "the best first"
    for kind, box in zip(kinds, boxes, strict=True):
        nearest = np.abs(detections.boxes[detections.classes == kind] - box * scale).max(1).min()
        assert nearest < 4 * scale
    assert detections.names == dict(enumerate(graphs.NAMES))
    assert set(detections.as_dicts()[0]) == {"name", "class", "score", "box"}
    assert set(detections.milliseconds) == {"letterbox", "inference", "decoding"}


def test_raw_and_decoded_files_find_the_same(file, drawn):
    one, other = (Detector(file(head), conf=0.05)(drawn[0]) for head in ("float", "raw"))
    assert one.classes.tolist() == other.classes.tolist()
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.2)  # the graph's anchors have 9 bits after the point
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_what_a_detector_looks_for(file, drawn):
    image, kinds, _ = drawn
    everything = Detector(file(), conf=0.001, iou=0.3)(image)
    assert len(set(everything.classes)) > 1
    wanted = Detector(file(), conf=0.001, iou=0.3, classes=[kinds[0]])(image)
    assert set(wanted.classes) == {kinds[0]}
    assert len(wanted) == (everything.classes == kinds[0]).sum()
    assert len(Detector(file(), conf=0.001, max_det=3)(image)) == 3
    assert (everything.scores > 0.001).all()
    assert (Detector(file(), conf=0.5)(image).scores > 0.5).all()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((10, 10), np.uint8), r"not uint8 \(10, 10\)"),
        (np.zeros((10, 10, 3), np.float32), "not float32"),
        (np.zeros((10, 10, 4), np.uint8), r"not uint8 \(10, 10, 4\)"),
        (np.zeros((0, 10, 3), np.uint8), "is empty"),
        ("picture.png", "not str"),
    ],
)
def test_an_image_that_is_none(file, image, said):
    with pytest.raises(InferenceError, match=said):
        Detector(file())(image)


@pytest.mark.parametrize(("name", "value"), [("conf", 2), ("iou", -1), ("max_det", 0), ("threads", 0)])
def test_settings_out_of_range(name, value):
    with pytest.raises(InferenceError, match=f"{name}={value}"):
        Detector("model.tflite", **{name: value})


def test_classes_that_the_model_does_not_know(file):
    with pytest.raises(InferenceError, match=r"classes=\[4, 9\] are not among the model's, 0 to 3"):
        Detector(file(), classes=[0, 9, 4])


def test_files_that_are_not_ours(tmp_path):
    with pytest.raises(InferenceError, match="not found"):
        Detector(tmp_path / "missing.tflite")
    (tmp_path / "other.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(ContractError, match="it has no metadata"):
        Detector(tmp_path / "other.tflite")


def test_files_that_the_runtime_does_not_take(file, tmp_path):
    with pytest.raises(UnsupportedModelError, match="is a classify model; the runtime takes detect, "):
        Detector(file(task="classify", outputs=(), normalised=False))
    with pytest.raises(ContractError, match=r"takes \(1, 160, 160, 3\), which is no image of three channels"):
        Detector(file(channels_last=False))
    with pytest.raises(ContractError, match=r"model\.tflite' cannot be read: output 'detections' has shape"):
        Detector(file(names={0: "a"}))
    network, facts = graphs.Network(2, 32, 32, 3), graphs.contract("float", io="float")
    path = tmp_path / "two.tflite"
    path.write_bytes(network.content(network.silu(network.input)))
    contract.append(path, facts, graphs.upstream(facts))
    with pytest.raises(UnsupportedModelError, match="takes 2 images at once"):
        Detector(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ai_edge_litert's, of no delegate
def test_files_for_the_edge_tpu_get_its_delegate(tmp_path, file):
    compiled = tmp_path / "model_edgetpu.tflite"
    compiled.write_bytes(file().read_bytes())
    with pytest.raises(MissingToolError, match=r"the delegate 'libedgetpu\.so\.1'"):
        Detector(compiled)
    with pytest.raises(MissingToolError, match="the delegate '/other'"):
        Detector(compiled, delegate="/other")


def test_the_runtime_needs_numpy_alone():
    program = """
import sys
for name in ("torch", "ultralytics", "cv2", "rich", "wrapt", "typer", "packaging", "psutil", "yaml", "tensorflow"):
    sys.modules[name] = None  # as if it were not installed
import yolo_edgequant.runtime
print(sorted({name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-600:]
    loaded = set(eval(child.stdout))
    assert {"numpy", "yolo_edgequant"} <= loaded
    heavy = {"PIL", "scipy", "matplotlib", "pandas", "openvino", "ai_edge_litert", "ai_edge_quantizer", "torchvision"}
    assert not loaded & heavy


def test_a_file_is_run_without_what_made_it(file, drawn, tmp_path):
    """Beside an Ultralytics that is installed, too: none of it is imported."""
    np.save(tmp_path / "image.npy", drawn[0])
    program = """
import sys
import numpy as np
from yolo_edgequant.runtime import Detector
print(len(Detector(sys.argv[1])(np.load(sys.argv[2]))))
print(sorted({name.split(".")[0] for name in sys.modules}))
"""
    command = [sys.executable, "-c", program, file(), tmp_path / "image.npy"]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-600:]
    count, loaded = child.stdout.splitlines()
    assert int(count) == len(Detector(file())(drawn[0])) > 0
    assert not set(eval(loaded)) & {"torch", "ultralytics", "ai_edge_quantizer", "tensorflow", "openvino", "nncf"}
