import pytest
import torch

from yolo_edgequant.tflite import conversion


@pytest.fixture(scope="session")
def conversions():
    return {}


@pytest.fixture(autouse=True)
def _convert_the_same_model_once(conversions, monkeypatch):
    """Tracing takes eight seconds; what computes the same from the same weights is converted once."""
    convert = litert.to_tflite

    def to_tflite(model, image, channels_last):
        weights = tuple(float(p.double().sum()) for p in model.parameters())
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            made = model(noise)
        made = made if isinstance(made, tuple) else (made,)
        outputs = tuple((tuple(y.shape), float(y.double().sum())) for y in made)
        key = (weights, tuple(image.shape), outputs, channels_last)
        if key not in conversions:
            conversions[key] = convert(model, image, channels_last)
        return conversions[key]

    monkeypatch.setattr(litert, "to_tflite", to_tflite)
