import numpy as np
import pytest

from yolo_edgequant.errors import CompilerError, UnsupportedModelError
from yolo_edgequant.inspection.reading import open_model

runs = pytest.importorskip("yolo_edgequant.inspection.openvino_runs")


def test_each_device_says_what_its_layers_compute_in(openvino_folder):
    reports = runs.compile_model(openvino_folder / "small.xml")
    cpu = next(report for report in reports if report.device.startswith("CPU"))
    assert cpu.compiler.startswith("OpenVINO 20")
    assert sum(cpu.precisions.values()) == cpu.accelerator + cpu.cpu > 0
    assert sum(heavy.share for heavy in cpu.heaviest) <= 1.0001
    assert all(fallback.reason.startswith("computes in ") for fallback in cpu.fallbacks)


def test_what_it_cannot_compile(openvino_folder, tmp_path):
    (tmp_path / "small.xml").write_text((openvino_folder / "small.xml").read_text().replace('"Swish"', '"Swash"'))
    (tmp_path / "small.bin").write_bytes((openvino_folder / "small.bin").read_bytes())
    with pytest.raises(CompilerError, match="OpenVINO cannot compile") as caught:
        runs.compile_model(tmp_path / "small.xml")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UnsupportedModelError, match="cannot be run"):
        runs.Kept(open_model(tmp_path / "small.xml"), ())


def test_values_inside_are_those_of_the_file(openvino_folder):
    model = open_model(openvino_folder)
    swish = next(node for node in model.nodes if node.kind == "Swish")
    added = swish.inputs[0]
    values = runs.Kept(model, {added, swish.outputs[0]})(np.random.default_rng(0).random((1, 3, 32, 32), np.float32))
    np.testing.assert_allclose(
        values[swish.outputs[0]], values[added] / (1 + np.exp(-values[added])), rtol=1e-3, atol=1e-3
    )
