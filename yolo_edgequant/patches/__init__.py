"""Every replaced function of Ultralytics, one module a seam, and the list of them. Only the top imports this.

Importing the list imports neither a patch module, nor Ultralytics, nor torch: replacements go by name, and what they
need of Ultralytics stands here as text. A need is what every release between the bounds has; what differs between them
is in :mod:`yolo_edgequant.upstream.compat`.
"""

from dataclasses import replace

from ..patching import Patch, Registry

#: The versions of Ultralytics that docs/versions.md has figures for, and those between them.
TESTED = ">=8.3.253,<=8.4.190"

TRAINING = "train(activation=…)"
FINETUNING = "finetune"

_HERE = __name__
_TFLITE = ("litert", "tflite", "edgetpu", "saved_model")
_EXPORTS = (*_TFLITE, "openvino")
_MODEL = "ultralytics.engine.model"
_EXPORTER = "ultralytics.engine.exporter"
_TRAINER = "ultralytics.engine.trainer:BaseTrainer"
_MODULES = "ultralytics.nn.modules"
_BACKENDS = "ultralytics.nn.backends"
_DISTILLATION = "ultralytics.nn.distill_model:DistillationModel"


def _in(owner: str, *names: str) -> tuple[str, ...]:
    """Needs in one module, ``module``, or of one class, ``module:Class``."""
    return tuple(f"{owner}{'.' if ':' in owner else ':'}{name}" for name in names)


# what patches/, upstream/ and the rest import, and what is used of it
_COMPAT = (
    *_in("ultralytics.data.utils", "check_det_dataset(dataset, autodownload)"),
    *_in("ultralytics.nn", "modules"),
    *_in("ultralytics.utils", "DEFAULT_CFG_DICT", "torch_utils"),
    *_in("ultralytics.utils.tal", "make_anchors(feats, strides, grid_cell_offset)"),
)
_COMMON = (
    *_COMPAT,
    *_in("ultralytics", "YOLO"),
    *_in("ultralytics.cfg", "ARGV", "TASK2DATA", "entrypoint", "get_cfg(overrides)", "smart_value"),
    *_in("ultralytics.data.build", "build_yolo_dataset(cfg, img_path, batch, data, mode)"),
    *_in("ultralytics.data.utils", "check_cls_dataset(dataset, split)"),
    *_in(_MODEL, "Model"),
    *_in("ultralytics.nn.tasks", "BaseModel.predict"),
    *_in("ultralytics.utils", "DATASETS_DIR", "LOGGER", "USER_CONFIG_DIR", "YAML.save"),
    *_in("ultralytics.utils", "colorstr"),
)
_HEAD_CLASSES = (
    *_in(_MODULES, "Classify", "Detect", "OBB", "Pose", "Segment", "WorldDetect", "YOLOEDetect", "YOLOESegment"),
    *_in(f"{_MODULES}.block", "BNContrastiveHead", "ContrastiveHead"),
)
_HEADS = (
    *_HEAD_CLASSES,
    *_in(_MODULES, "C2f.forward_split", "Pose.kpts_decode"),
    *_in(f"{_MODULES}:Detect", "_inference(x)", "postprocess", "cv2", "cv3", "dfl", "dynamic", "end2end", "export"),
    *_in(f"{_MODULES}:Detect", "format", "max_det", "nc", "nl", "reg_max", "shape", "stride", "xyxy"),
)
_HEADS_OF_8_4 = (
    *_in(_MODULES, "Pose26"),
    *_in(f"{_MODULES}.block", "Proto26"),
    *_in(f"{_MODULES}:Detect", "_get_decode_boxes", "forward_head(box_head, cls_head)", "one2many", "one2one"),
)
_HEADS_OF_8_3 = _in(f"{_MODULES}:Detect", "decode_bboxes(bboxes, anchors)")
_EXPORTER_CALL = Patch(
    _EXPORTER,
    "Exporter.__call__",
    f"{_HERE}.exporter:exporter_call",
    "send INT8 exports to the converters below, bring format='tflite' back, check all input before any work",
    parameters=("model",),
    serves=_EXPORTS,
    needs=(
        *_COMMON,
        *_HEADS,
        *_in(_EXPORTER, "NMSModel"),
        *_in(f"{_EXPORTER}:Exporter", "args", "file", "im", "imgsz", "metadata", "model"),
    ),
)

REGISTRY = Registry(
    "ultralytics",
    (
        Patch(
            _MODEL,
            "Model.export",
            f"{_HERE}.doors:model_export",
            "take head, granularity, ranges and io in the standard call",
            serves=_EXPORTS,
            is_door=True,
        ),
        replace(_EXPORTER_CALL, needs=(*_EXPORTER_CALL.needs, *_HEADS_OF_8_4), since="8.4.0"),
        replace(_EXPORTER_CALL, needs=(*_EXPORTER_CALL.needs, *_HEADS_OF_8_3), until="8.4.0"),
        Patch(
            _EXPORTER,
            "Exporter.get_int8_calibration_dataloader",
            f"{_HERE}.calibration:calibration_loader",
            "take the images in order, so that an export can be repeated",
            parameters=("prefix",),
            serves=_EXPORTS,
            needs=_COMMON + _HEADS,
        ),
        Patch(
            _EXPORTER,
            "Exporter.export_saved_model",
            f"{_HERE}.saved_model:export_saved_model",
            "one conversion and one calibration for all files, boxes in the unit square, memory that does not grow",
            serves=("saved_model",),
            needs=(
                *_COMMON,
                *_HEADS,
                *_in(_EXPORTER, "Exporter.export_onnx", "NMSModel"),
                *_in("ultralytics.utils.export.tensorflow", "tflite2edgetpu"),
            ),
        ),
        Patch(
            _EXPORTER,
            "Exporter.export_openvino",
            f"{_HERE}.conversion:export_openvino",
            "keep the whole of box decoding in float by a scope found in the graph, and write .tflite files, too",
            serves=("litert", "tflite", "edgetpu", "openvino"),
            needs=(
                *_COMMON,
                *_HEADS,
                *_in("ultralytics.utils.export.tensorflow", "tflite2edgetpu(tflite_file, output_dir, prefix)"),
            ),
        ),
        Patch(
            f"{_BACKENDS}.base",
            "BaseBackend.apply_metadata",
            f"{_HERE}.backends:apply_metadata",
            "read what a file of ours says of itself, which stops every reader that does not know it",
            parameters=("metadata",),
            serves=_EXPORTS,
            since="8.4.23",
            needs=_COMPAT,
        ),
        Patch(
            f"{_BACKENDS}.litert",
            "LiteRTBackend.forward",
            f"{_HERE}.backends:litert_forward",
            "round instead of truncating at the input, uint8 ends, decode by the file's metadata",
            parameters=("im",),
            serves=_TFLITE,
            needs=_COMPAT
            + _in(f"{_BACKENDS}.litert:LiteRTBackend", "input_details", "interpreter", "nhwc", "output_details"),
            since="8.4.83",
        ),
        Patch(
            f"{_BACKENDS}.openvino",
            "OpenVINOBackend.forward",
            f"{_HERE}.backends:openvino_forward",
            "decode the outputs of raw files",
            parameters=("im",),
            serves=("openvino",),
            since="8.4.23",
            needs=_COMPAT,
        ),
        Patch(
            f"{_BACKENDS}.tensorflow",
            "TensorFlowBackend.forward",
            f"{_HERE}.backends:tensorflow_forward",
            "the same for compiled Edge TPU files, and before 8.4.83 for all .tflite files",
            parameters=("im",),
            serves=_TFLITE,
            needs=_COMPAT + _in(f"{_BACKENDS}.tensorflow:TensorFlowBackend", "format", "input_details", "interpreter"),
            since="8.4.23",
        ),
        Patch(
            f"{_BACKENDS}.tensorflow",
            "TensorFlowBackend.load_model",
            f"{_HERE}.backends:tensorflow_load",
            "read .tflite files with LiteRT's interpreter where neither tflite-runtime nor TensorFlow is",
            parameters=("weight",),
            serves=_TFLITE,
            since="8.4.23",
            until="8.4.83",
            needs=_COMPAT,
        ),
        Patch(
            "ultralytics.nn.autobackend",
            "AutoBackend.__init__",
            f"{_HERE}.autobackend:load",
            "open a file of ours by what it says of itself",
            serves=_EXPORTS,
            until="8.4.23",
            needs=_COMPAT,
        ),
        Patch(
            "ultralytics.nn.autobackend",
            "AutoBackend.forward",
            f"{_HERE}.autobackend:forward",
            "run a file of ours, and decode its outputs",
            parameters=("im",),
            serves=_EXPORTS,
            needs=_COMPAT + _in("ultralytics.nn.autobackend", "AutoBackend.from_numpy"),
            until="8.4.23",
        ),
        Patch(
            _MODEL,
            "Model.train",
            f"{_HERE}.doors:model_train",
            "take activation in the standard call, and train quantization-aware models as they are",
            parameters=("trainer",),
            serves=(TRAINING, FINETUNING),
            is_door=True,
        ),
        Patch(
            "ultralytics.nn.tasks",
            "BaseModel._predict_once",
            f"{_HERE}.models:predict_once",
            "round where a model that is trained quantization-aware has a point",
            serves=(FINETUNING,),
            needs=(*_COMMON, *_HEADS, *_HEADS_OF_8_4),
        ),
        Patch(
            "ultralytics.nn.tasks",
            "parse_model",
            f"{_HERE}.models:parse_model",
            "a swapped model that is built again keeps its activations, in blocks that name SiLU themselves, too",
            parameters=("d", "ch", "verbose"),
            serves=(TRAINING, FINETUNING),
            needs=(
                *_COMPAT,
                *_HEAD_CLASSES,
                *_in(_MODEL, "Model._smart_load"),
                *_in(_TRAINER, "args", "ddp", "get_model(cfg, weights, verbose)", "resume", "tloss", "train"),
            ),
        ),
        Patch(
            "ultralytics.nn.tasks",
            "torch_safe_load",
            f"{_HERE}.models:torch_safe_load",
            "say what a checkpoint trained quantization-aware needs, instead of failing in an import",
            needs=_COMPAT + _HEAD_CLASSES,
        ),
        Patch(
            "ultralytics.nn.distill_model",
            "DistillationModel.loss",
            f"{_HERE}.distillation:loss",
            "a swapped model that is distilled learns its teacher's outputs, too",
            parameters=("batch", "preds"),
            serves=(FINETUNING,),
            first="8.4.77",
            needs=(
                *_COMPAT,
                *_in(_DISTILLATION, "_student_feats", "_teacher_feats", "feats_idx", "student_model", "teacher_model"),
                *_in(_DISTILLATION, "decouple_outputs(preds, branch)"),
            ),
        ),
    ),
    TESTED,
    "YOLO_EDGEQUANT_FORCE",
)
