"""The script that made ``shapes.pt`` and the models in tests/weights.

``python -m yolo_edgequant.demo.train`` takes 20 minutes on one core; ``--task`` and ``--generation`` make the others.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from .dataset import KEYPOINTS, TASKS, data_set

HERE = Path(__file__).parent
WEIGHTS = HERE / "shapes.pt"
SIZE = 160  # side of the images and of the model's input, pixels

_HEADS: dict[str, tuple[str, list[Any]]] = {
    "detect": ("Detect", ["nc"]),
    "segment": ("Segment", ["nc", 32, 128]),
    "pose": ("Pose", ["nc", "kpt_shape"]),
    "obb": ("OBB", ["nc", 1]),
}


def main() -> None:
    """Draw the data, train, and write the weights in half precision without the optimiser."""
    from ..upstream.models import YAML, YOLO

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, default="detect")
    parser.add_argument("--generation", type=int, choices=(8, 26), default=8, help="26: without DFL and without NMS")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--images", type=int, default=2400)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = data_set(Path(folder) / "shapes", arguments.images, 200, SIZE, task=arguments.task)
        plan = Path(folder) / arguments.out.with_suffix(".yaml").name
        YAML.save(plan, architecture(arguments.task, arguments.generation))
        model = YOLO(plan, task=arguments.task)
        model.train(
            data=data,
            imgsz=SIZE,
            epochs=arguments.epochs,
            batch=32,
            optimizer="AdamW",
            lr0=0.003,
            cos_lr=True,
            close_mosaic=15,
            workers=0,
            cache="ram",
            seed=0,
            plots=False,
            project=folder,
            name="run",
        )
        save(Path(folder) / "run" / "weights" / "best.pt", arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


def architecture(task: str, generation: int) -> dict[str, Any]:
    """The embedded detector's architecture with the head of another task or generation (8 or 26)."""
    from ..upstream.models import YAML

    plan = YAML.load(HERE / "shapes.yaml")
    name, values = _HEADS[task]
    plan["head"][-1][2:] = [name + ("26" if generation == 26 and task != "detect" else ""), values]
    if task == "pose":
        plan["kpt_shape"] = [len(KEYPOINTS), 3]
    if generation == 26:
        plan |= {"end2end": True, "reg_max": 1}
    return plan


def save(trained: Path, out: Path) -> None:
    """Copy a checkpoint without the paths of the machine that made it."""
    import torch

    checkpoint = torch.load(trained, map_location="cpu", weights_only=False)
    model = checkpoint["model"]
    for values in (checkpoint["train_args"], model.args, model.yaml):
        for key, value in values.items():
            if isinstance(value, (str, Path)) and "/" in str(value):
                values[key] = Path(value).name
    model.pt_path = out.name
    checkpoint = {key: checkpoint[key] for key in ("model", "train_args", "date", "version", "license")}
    torch.save({**checkpoint, "epoch": -1, "ema": None, "optimizer": None}, out)


if __name__ == "__main__":
    main()
