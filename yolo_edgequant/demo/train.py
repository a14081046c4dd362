"""The script that made ``shapes.pt``: ``python -m yolo_edgequant.demo.train``, about 15 minutes on two cores."""

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
        best = Path(folder) / "run" / "weights" / "best.pt"
        model = YOLO(best)
        model.ckpt["train_args"].pop("project", None)  # paths of this machine
        model.save(chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
