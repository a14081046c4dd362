import re

import pytest

from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.inspection.read_openvino import read


def test_grids_and_weights_are_read_as_what_they_mean(openvino_folder):
    model = read(openvino_folder / "small.xml")
    assert (model.family, model.side) == ("openvino", 32)
    kinds = [node.kind for node in model.nodes]
    assert kinds == ["FakeQuantize", "Convolution", "Add", "Swish", "FakeQuantize", "Reshape"]
    first, conv, *_, second, _ = model.nodes
    assert model.tensors[first.outputs[0]].scale == pytest.approx(1 / 255)
    assert model.tensors[second.outputs[0]].scale == pytest.approx(0.01)
    assert model.tensors[second.outputs[0]].zero_points.tolist() == [50]
    weights = model.weights_of(conv)
    assert (weights.dtype, weights.shape) == ("int8", (4, 3, 3, 3))
    assert weights.scales.tolist() == pytest.approx([0.01] * 4, rel=1e-6)
    assert (weights.zero_points.tolist(), weights.levels) == ([0] * 4, 256)
    assert weights.size == 4 * 3 * 3 * 3
    assert model.nodes[3].version == 4


@pytest.fixture
def copied(openvino_folder, tmp_path):
    for name in ("small.xml", "small.bin"):
        (tmp_path / name).write_bytes((openvino_folder / name).read_bytes())
    return tmp_path / "small.xml"


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('<net name="Model', '<!DOCTYPE x [<!ENTITY a "b">]><net name="Model', "document type"),
        ("<net ", "<!DOCTYPE net><net ", "document type"),
        ("<net ", "<nut ", "mismatched tag"),
        ('from-layer="0"', 'from-layer="99"', "99"),
        ('offset="0"', 'offset="99999999"', "behind the end"),
        ('levels="256"', 'levels="many"', "many"),
        ("<dim>32</dim>", "<dim>thirty</dim>", "thirty"),
        ('to-port="0"', "", "to-port"),
    ],
)
def test_damage_is_one_line(copied, old, new, reason):
    changed(copied, old, new)
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        read(copied)
    assert len(str(caught.value).splitlines()) == 1


def test_a_document_type_is_refused_in_every_encoding(copied):
    changed(copied, '<net name="Model', '<!DOCTYPE net [<!ENTITY a "b">]><net name="&a;')
    copied.write_bytes(re.sub(r"<\?xml[^>]*>", "", copied.read_text()).encode("utf-16"))
    with pytest.raises(UnsupportedModelError, match="document type"):
        read(copied)


def test_a_circle_is_no_model(copied):
    first, *_, last = re.findall(r'<layer id="(\d+)"[^>]* type="FakeQuantize"', copied.read_text())
    edge = f'<edge from-layer="{last}" from-port="5" to-layer="{first}" to-port="9"/>'
    changed(copied, "</edges>", f"{edge}</edges>")
    with pytest.raises(UnsupportedModelError, match="each other's results"):
        read(copied)


def test_its_constants_have_to_be_there(copied):
    copied.with_suffix(".bin").unlink()
    with pytest.raises(UnsupportedModelError, match=r"has no 'small\.bin' beside it"):
        read(copied)


def test_every_cut_is_refused(copied):
    text = copied.read_bytes()
    for length in range(0, len(text) - 20, len(text) // 25):
        copied.write_bytes(text[:length])
        with pytest.raises(UnsupportedModelError):
            read(copied)
