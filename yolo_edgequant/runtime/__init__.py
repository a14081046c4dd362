"""Inference on the device: NumPy and one interpreter. No torch, no Ultralytics.

Example:
    >>> from yolo_edgequant.runtime import Detector
    >>> detector = Detector("yolov8n_full_integer_quant.tflite")  # doctest: +SKIP
    >>> detector(image).boxes  # doctest: +SKIP
"""

from .detections import Detections
from .detector import Detector

__all__ = ["Detections", "Detector"]
