"""Exports with the Ultralytics in front of the path, plain or patched: ``python FILE WEIGHTS DATA``, in a folder.

Writes exports.json: the share of FP32's mAP that LiteRT INT8 keeps without this library; and, with --all, digests of
the FP32 exports and of this library's. A digest leaves out metadata, where the date is.
"""

import argparse
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

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


def digests_of_all(export: Callable[..., Path], accuracy: Callable[[Path], float]) -> dict[str, dict]:
    """Digests of the FP32 exports and of this library's, and what a SavedModel of ours says and does.

    Args:
        export: takes a folder and arguments.
        accuracy: takes a file.
    """
    from ultralytics.utils import YAML

    import yolo_edgequant

    plain = {name: digests(export(f"fp32-{name}", format=name)) for name in FORMATS}
    yolo_edgequant.enable()
    ours = {
        f"{name}-{head}": digests(export(f"{name}-{head}", format=name, head=head, quantize=8)) for name, head in OURS
    }
    (folder,) = Path("saved_model-float").glob("*_saved_model")
    ours["SavedModel"] = {"entries": sorted(YAML.load(folder / "metadata.yaml")), "mAP": accuracy(folder)}
    return {"fp32": plain, "library": ours}


def main() -> None:
    """Export, validate and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training images, to calibrate on")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    import yolo_edgequant

    yolo_edgequant.disable()
    from ultralytics import YOLO

    def export(folder: str, **arguments: object) -> Path:
        Path(folder).mkdir()
        model = YOLO(shutil.copy(options.weights, folder))
        arguments |= {"imgsz": options.imgsz, "data": options.data, "split": "train", "fraction": options.fraction}
        return Path(model.export(**arguments))

    def accuracy(file: Path) -> float:
        model = YOLO(file, task="detect")
        metrics = model.val(data=options.data, imgsz=options.imgsz, batch=1, rect=False, plots=False, workers=0)
        return float(metrics.box.map)

    results = {"share": accuracy(export("int8", format="litert", quantize=8)) / accuracy(options.weights)}
    if options.all:
        results |= digests_of_all(export, accuracy)
    Path("exports.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
