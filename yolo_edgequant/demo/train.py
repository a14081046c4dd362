"""The script that made ``shapes.pt``: ``python -m yolo_edgequant.demo.train``, 20 minutes on one core."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WEIGHTS = HERE / "shapes.pt"
SIZE = 160  # side of the images and of the model's input, pixels


def main() -> None:
    """Draw the data, train, and write the weights in half precision without the optimiser."""
    from ultralytics import YOLO

    from .draw import data_set

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--epochs", type=int, default=40)
    arguments.add_argument("--images", type=int, default=2400)
    arguments.add_argument("--out", type=Path, default=WEIGHTS)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = data_set(Path(folder) / "shapes", chosen.images, 200, SIZE)
        model = YOLO(HERE / "shapes.yaml")
        model.train(
            data=data,
            imgsz=SIZE,
            epochs=chosen.epochs,
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
        save(Path(folder) / "run" / "weights" / "best.pt", chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.2f} MB")


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
