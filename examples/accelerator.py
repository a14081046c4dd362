"""From a SiLU checkpoint to files for Coral and NXP's i.MX 93: swap to ReLU6, finetune, export, inspect, compile.

python examples/accelerator.py                                        the embedded detector, offline, in minutes
python examples/accelerator.py --model yolov8n.pt --data my.yaml --imgsz 320 --epochs 20 --batch 32 --device 0
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import SIZE, WEIGHTS
from yolo_edgequant.errors import MissingToolError
from yolo_edgequant.inspection.examine import examine
from yolo_edgequant.inspection.report import tables

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=WEIGHTS, help="checkpoint; the embedded detector without")
parser.add_argument("--data", help="its data set's YAML; drawn images without")
parser.add_argument("--imgsz", type=int, default=SIZE)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--device", default="cpu", help="to train on")
parser.add_argument("--out", type=Path, help="folder to keep what is written")
arguments = parser.parse_args()
console = Console(width=160)

with tempfile.TemporaryDirectory() as folder:
    out = arguments.out or Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    data = arguments.data or data_set(out / "data", train=200, val=40, size=SIZE)
    common = {"data": data, "imgsz": arguments.imgsz}

    # Accelerators compute ReLU6 with the convolution; SiLU costs them two more operators for each
    tuned = yolo_edgequant.finetune(
        shutil.copy(arguments.model, out),
        activation="relu6",
        out=out / "relu6",
        epochs=arguments.epochs,
        batch=arguments.batch,
        device=arguments.device,
        workers=0,
        **common,
    )

    for target in ("coral-edgetpu", "nxp-imx93"):
        checkpoint = shutil.copy(tuned.checkpoint, out / f"{target}.pt")  # exports are written beside it
        # as .tflite: format="edgetpu" compiles for Coral, too, where edgetpu_compiler is installed
        file = YOLO(checkpoint).export(format="tflite", quantize=8, target=target, split="train", **common)
        try:
            compiles = target == "nxp-imx93"  # by vela: pip install 'yolo-edgequant[ethos-u]'
            inspection = examine(Path(file), target, compiling=compiles, keep=out if compiles else None)
        except MissingToolError as error:
            print(f"not compiled: {error}")
            inspection = examine(Path(file), target)
        console.print(tables(inspection))
        box = YOLO(file, task="detect").val(**common, plots=False, verbose=False, workers=0).box
        print(f"{Path(file).name}: mAP50-95 {box.map:.3f}")
