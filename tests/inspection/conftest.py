import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests import fuzz
from tests.graphs import Network
from yolo_edgequant.tflite import packing


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The committed detector as a raw and as an int8 file, with contracts, by head."""
    raw, int8 = fuzz.small_tflite(tmp_path_factory.mktemp("inspected"))
    return {"raw": raw, "int8": int8}


@pytest.fixture(scope="session")
def float_file(tmp_path_factory, detector):
    path = tmp_path_factory.mktemp("float") / "float.tflite"
    path.write_bytes(detector)
    return path


def rounded(content, scales, default=0.05):
    """A float graph with all its tensors in int8: of these scales by tensor, else `default`; constants in range."""
    model = packing.unpack(content)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        if tensor.type != schema.TensorType.FLOAT32:
            continue
        data = model.buffers[tensor.buffer].data if tensor.buffer else None
        scale = scales.get(index, default)
        if data is not None:
            values = np.frombuffer(np.asarray(data).tobytes(), np.float32)
            scale = scales.get(index, float(np.abs(values).max() / 127) or 1.0)
            model.buffers[tensor.buffer].data = np.rint(values / scale).astype(np.int8).view(np.uint8)
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0 if data is not None else -128]
    return packing.pack(model)


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    """Writes a small detector that decodes in pixels, 64 x 64: boxes are cells times strides, scores a sigmoid.

    Scales of the boxes in cells, the boxes in pixels and of the output are arguments.
    """
    network = Network(1, 64, 64, 3)
    random = np.random.default_rng(0)
    pooled = network.max_pool(network.max_pool(network.max_pool(network.input)))

    def branch(channels):
        maps = network.conv(pooled, random.normal(0, 0.4, (channels, 3, 3, 3)))
        return network.add("RESHAPE", (maps, network.constant([1, 64, channels], np.int32)), (1, 64, channels))

    boxes, scores = branch(4), branch(2)
    strides = network.constant(np.repeat([8.0, 16.0, 32.0, 64.0], 16).reshape(1, 64, 1))
    pixels = network.add("MUL", (boxes, strides), (1, 64, 4))
    probabilities = network.add("LOGISTIC", (scores,), (1, 64, 2))
    output = network.add("CONCATENATION", (pixels, probabilities), (1, 64, 6), axis=2)
    folder = tmp_path_factory.mktemp("decoders")

    def write(cells, box, all_, name="decoder.tflite"):
        scales = {boxes: cells, pixels: box, probabilities: 1 / 256, output: all_}
        path = folder / f"{cells}-{box}-{all_}-{name}"
        path.write_bytes(rounded(network.content(output), scales))
        return path

    return write


@pytest.fixture(scope="session")
def openvino_folder(tmp_path_factory):
    """A convolution of weights in 8 bits behind a rounded input, with its bias and a SiLU, 32 x 32."""
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    random = np.random.default_rng(0)
    image = ops.parameter([1, 3, 32, 32], np.float32, name="image")
    ends = [np.float32(v) for v in (0.0, 1.0, 0.0, 1.0)]
    source = ops.fake_quantize(image, *ends, 256)
    weights = ops.convert(ops.constant(random.integers(-127, 128, (4, 3, 3, 3), np.int8)), "f32")
    kernel = ops.multiply(weights, ops.constant(np.full((4, 1, 1, 1), 0.01, np.float32)))
    maps = ops.convolution(source, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    biased = ops.add(maps, ops.constant(np.ones((1, 4, 1, 1), np.float32)))
    low, high = np.float32(-0.5), np.float32(2.05)
    grid = ops.fake_quantize(ops.swish(biased), low, high, low, high, 256)
    folder = tmp_path_factory.mktemp("ir") / "small_openvino_model"
    folder.mkdir()
    result = ops.result(ops.reshape(grid, [1, 4, 1024], False))
    ov.save_model(ov.Model([result], [image]), folder / "small.xml", False)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of three drawn images."""
    import cv2

    from yolo_edgequant.demo.dataset import picture

    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), picture(160, np.random.default_rng(index))[0])
    return folder
