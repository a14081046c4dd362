import numpy as np

from yolo_edgequant.runtime.interpreter import Tensor


def details(dtype, scale, zero_point):
    return {"shape": np.array([1, 2]), "dtype": dtype, "quantization": (scale, zero_point)}


def test_stored_numbers_are_rounded_and_clipped():
    tensor = Tensor.of(details(np.int8, 1 / 255, -128))
    pixels = np.arange(256)
    values = (pixels / 255).astype(np.float32)
    assert (tensor.stored(values) == pixels - 128).all()
    assert tensor.stored(np.array([-3.0, 9.0])).tolist() == [-128, 127]
    unsigned = Tensor.of(details(np.uint8, 1 / 255, 0))
    assert (unsigned.stored(values) == pixels).all()
    np.testing.assert_allclose(unsigned.values(pixels.astype(np.uint8)), values, atol=1e-6)
    np.testing.assert_allclose(tensor.table(), values, atol=1e-6)
    assert Tensor.of(details(np.float32, 0.0, 0)).stored(values).dtype == np.float32
