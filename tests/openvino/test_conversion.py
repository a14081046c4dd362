import pytest
import torch
from torch import nn

from yolo_edgequant.openvino.conversion import to_openvino
from yolo_edgequant.openvino.interpreter import run

pytestmark = pytest.mark.export


@pytest.mark.parametrize("dynamic", [False, True])
def test_shapes_and_values(dynamic):
    layer = nn.Conv2d(3, 4, 3).eval()
    image = torch.rand(1, 3, 8, 8)
    model = to_openvino(layer, image, dynamic)
    assert model.inputs[0].get_partial_shape().is_dynamic is dynamic
    with torch.no_grad():
        expected = layer(image)
    (result,) = run(model, [image.numpy()], exact=True).outputs[0]
    torch.testing.assert_close(torch.from_numpy(result), expected, atol=1e-5, rtol=1e-5)
