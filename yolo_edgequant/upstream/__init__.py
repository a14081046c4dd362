"""All that knows Ultralytics' internals: one module a seam, and the list of patches.

Importing this imports neither Ultralytics nor torch.
"""

from ..patching import Patch, Registry
from . import activation, aware, backends, convert, distillation, export

_TESTED = "==8.4.190"

REGISTRY = Registry(
    "ultralytics",
    (
        Patch(
            "ultralytics.engine.model",
            "Model.export",
            export.model_export,
            _TESTED,
            "take head, granularity, ranges and io in the standard call",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.__call__",
            export.exporter_call,
            _TESTED,
            "send INT8 exports to the converters below, bring format='tflite' back, check all input before any work",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.get_int8_calibration_dataloader",
            convert.calibration_loader,
            _TESTED,
            "take the images in order, so that an export can be repeated",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.export_saved_model",
            convert.export_saved_model,
            _TESTED,
            "one conversion and one calibration for all files, boxes normalised, memory that does not grow",
        ),
        Patch(
            "ultralytics.engine.exporter",
            "Exporter.export_openvino",
            convert.export_openvino,
            _TESTED,
            "move the folder into place when it is whole",
        ),
        Patch(
            "ultralytics.utils.export.litert",
            "torch2litert",
            convert.torch2litert,
            _TESTED,
            "normalised head, ranges that look through the activation, Head #3 in float, NHWC and integer ends",
        ),
        Patch(
            "ultralytics.utils.export.openvino",
            "torch2openvino",
            convert.torch2openvino,
            _TESTED,
            "keep the whole of Head #3 in float by a scope that is found in the graph and must match",
        ),
        Patch(
            "ultralytics.nn.backends.litert",
            "LiteRTBackend.forward",
            backends.litert_forward,
            _TESTED,
            "round instead of truncating at the input, uint8 ends, decode by the file's metadata",
        ),
        Patch(
            "ultralytics.nn.backends.openvino",
            "OpenVINOBackend.forward",
            backends.openvino_forward,
            _TESTED,
            "decode the outputs of raw files",
        ),
        Patch(
            "ultralytics.nn.backends.tensorflow",
            "TensorFlowBackend.forward",
            backends.tensorflow_forward,
            _TESTED,
            "the same for compiled Edge TPU files",
        ),
        Patch(
            "ultralytics.engine.model",
            "Model.train",
            activation.model_train,
            _TESTED,
            "take activation in the standard call",
        ),
        Patch(
            "ultralytics.engine.trainer",
            "BaseTrainer.setup_model",
            activation.setup_model,
            _TESTED,
            "swap the activations of the model that is about to be trained, and give it its fake quantisation",
        ),
        Patch(
            "ultralytics.nn.tasks",
            "BaseModel._predict_once",
            aware.predict_once,
            _TESTED,
            "round where a model that is trained quantisation-aware has a point",
        ),
        Patch(
            "ultralytics.nn.tasks",
            "parse_model",
            activation.parse_model,
            _TESTED,
            "a swapped model that is built again keeps its activations, in blocks that name SiLU themselves, too",
        ),
        Patch(
            "ultralytics.nn.tasks",
            "torch_safe_load",
            export.torch_safe_load,
            _TESTED,
            "say what a checkpoint trained quantisation-aware needs, instead of failing in an import",
        ),
        Patch(
            "ultralytics.nn.distill_model",
            "DistillationModel.loss",
            distillation.loss,
            _TESTED,
            "a swapped model that is distilled learns its teacher's outputs, too",
        ),
    ),
)
