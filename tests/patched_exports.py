"""Exports with the Ultralytics in front of the path, plain or patched: ``python FILE WEIGHTS DATA``, in a folder.

Writes exports.json: digests of the FP32 exports; the share of FP32's mAP that LiteRT INT8 keeps without this library;
and digests of this library's exports. A digest leaves out metadata, where the date is.
"""

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

SIZE = 160
FORMATS = ("litert", "openvino", "onnx")
OURS = (("litert", "float"), ("tflite", "int8"), ("openvino", "float"), ("saved_model", "float"))


def digest(path: Path) -> str:
    """The digest of a model, without the metadata that a .tflite or ONNX file holds."""
    content = path.read_bytes()
    if path.suffix == ".tflite":
        with zipfile.ZipFile(path) as archive:
            content = content[: min(entry.header_offset for entry in archive.infolist())]
    elif path.suffix == ".onnx":
        import onnx

        content = onnx.load(path).graph.SerializeToString()
    return hashlib.sha256(content).hexdigest()


def digests(path: Path) -> dict[str, str]:
    """The digest of each file of a model, by name."""
    kinds = {".tflite", ".xml", ".bin", ".onnx"}
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.suffix in kinds]
    return {file.name: digest(file) for file in files}


def main() -> None:
    """Export, validate and write what came of it."""
    weights, data = (Path(argument) for argument in sys.argv[1:])
    import yolo_edgequant

    yolo_edgequant.disable()
    from ultralytics import YOLO
    from ultralytics.utils import YAML

    def export(folder: str, **arguments: object) -> Path:
        Path(folder).mkdir()
        return Path(YOLO(shutil.copy(weights, folder)).export(imgsz=SIZE, data=str(data), split="train", **arguments))

    def accuracy(file: Path) -> float:
        return float(
            YOLO(file, task="detect").val(data=str(data), imgsz=SIZE, batch=1, rect=False, plots=False).box.map
        )

    plain = {name: digests(export(f"fp32-{name}", format=name)) for name in FORMATS}
    share = accuracy(export("int8", format="litert", quantize=8)) / accuracy(weights)
    yolo_edgequant.enable()
    ours = {
        f"{name}-{head}": digests(export(f"{name}-{head}", format=name, head=head, quantize=8)) for name, head in OURS
    }
    folder = Path("saved_model-float") / f"{weights.stem}_saved_model"
    said = YAML.load(folder / "metadata.yaml")
    ours["SavedModel"] = {"entries": sorted(said), "mAP": accuracy(folder)}
    Path("exports.json").write_text(json.dumps({"fp32": plain, "share": share, "library": ours}, indent=1) + "\n")


if __name__ == "__main__":
    main()
