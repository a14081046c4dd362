"""Every replaced function of Ultralytics, one module a seam, and the list of them. Only the top imports this.

Importing the list imports neither a patch module, nor Ultralytics, nor torch: replacements go by name.
"""

from ..patching import Patch, Registry

_TESTED = "==8.4.190"
_HERE = __name__

REGISTRY = Registry(
    "ultralytics",
    (
        Patch(
            "ultralytics.engine.model",
            "Model.export",
            f"{_HERE}.exporter:model_export",
            _TESTED,
            "take head, granularity, ranges and io in the standard call",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.__call__",
            f"{_HERE}.exporter:exporter_call",
            _TESTED,
            "send INT8 exports to the converters below, bring format='tflite' back, check all input before any work",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.get_int8_calibration_dataloader",
            f"{_HERE}.calibration:calibration_loader",
            _TESTED,
            "take the images in order, so that an export can be repeated",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.export_saved_model",
            f"{_HERE}.saved_model:export_saved_model",
            _TESTED,
            "one conversion and one calibration for all files, boxes in the unit square, memory that does not grow",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.export_openvino",
            f"{_HERE}.openvino:export_openvino",
            _TESTED,
            "move the folder into place when it is whole",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.export_litert",
            f"{_HERE}.litert:export_litert",
            _TESTED,
            "boxes in the unit square, ranges that look through SiLU, box decoding in float, NHWC and integer ends",
        ),
        Patch(
            "ultralytics.utils.export.openvino",
            "torch2openvino",
            f"{_HERE}.openvino:torch2openvino",
            _TESTED,
            "keep the whole of box decoding in float by a scope that is found in the graph and must match",
        ),
        Patch(
            "ultralytics.nn.backends.base",
            "BaseBackend.apply_metadata",
            f"{_HERE}.backends:apply_metadata",
            _TESTED,
            "read what a file of ours says of itself, which stops every reader that does not know it",
        ),
        Patch(
            "ultralytics.nn.backends.litert",
            "LiteRTBackend.forward",
            f"{_HERE}.backends:litert_forward",
            _TESTED,
            "round instead of truncating at the input, uint8 ends, decode by the file's metadata",
        ),
        Patch(
            "ultralytics.nn.backends.openvino",
            "OpenVINOBackend.forward",
            f"{_HERE}.backends:openvino_forward",
            _TESTED,
            "decode the outputs of raw files",
        ),
        Patch(
            "ultralytics.nn.backends.tensorflow",
            "TensorFlowBackend.forward",
            f"{_HERE}.backends:tensorflow_forward",
            _TESTED,
            "the same for compiled Edge TPU files",
        ),
        Patch(
            "ultralytics.engine.model",
            "Model.train",
            f"{_HERE}.training:model_train",
            _TESTED,
            "take activation in the standard call, and train quantization-aware models as they are",
        ),
        Patch(
            "ultralytics.nn.tasks",
            "BaseModel._predict_once",
            f"{_HERE}.models:predict_once",
            _TESTED,
            "round where a model that is trained quantization-aware has a point",
        ),
        Patch(
            "ultralytics.nn.tasks",
            "parse_model",
            f"{_HERE}.models:parse_model",
            _TESTED,
            "a swapped model that is built again keeps its activations, in blocks that name SiLU themselves, too",
        ),
        Patch(
            "ultralytics.nn.tasks",
            "torch_safe_load",
            f"{_HERE}.models:torch_safe_load",
            _TESTED,
            "say what a checkpoint trained quantization-aware needs, instead of failing in an import",
        ),
        Patch(
            "ultralytics.nn.distill_model",
            "DistillationModel.loss",
            f"{_HERE}.training:loss",
            _TESTED,
            "a swapped model that is distilled learns its teacher's outputs, too",
        ),
    ),
)

#: In force where Ultralytics is not one that the patches above were tested with.
REFUSALS = Registry(
    "ultralytics",
    (
        Patch(
            "ultralytics.engine.model",
            "Model.export",
            f"{_HERE}.refusal:model_export",
            ">=0",
            "refuse our options, which nothing in this version would heed",
        ),
    ),
)
