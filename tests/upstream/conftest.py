import pytest

from yolo_edgequant.conversion import litert


@pytest.fixture(scope="session")
def conversions():
    return {}


@pytest.fixture(autouse=True)
def _convert_the_same_model_once(conversions, monkeypatch):
    """Tracing takes eight seconds; the same weights, size and layout are converted for the first test only."""
    convert = litert.to_tflite

    def to_tflite(model, image, channels_last):
        weights = tuple(float(p.double().sum()) for p in model.parameters())
        made = model(image)
        made = made if isinstance(made, tuple) else (made,)
        key = (weights, tuple(image.shape), tuple(tuple(y.shape) for y in made), channels_last)
        if key not in conversions:
            conversions[key] = convert(model, image, channels_last)
        return conversions[key]

    monkeypatch.setattr(litert, "to_tflite", to_tflite)
