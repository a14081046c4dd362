"""Every exception that yolo_edgequant raises on purpose.

All derive from :class:`EdgeQuantError`, whose message is one line for the user: what is wrong, the value seen, what to
do. Anything else that escapes is a defect of ours.
"""


class EdgeQuantError(Exception):
    """Base of all errors below."""


class OptionError(EdgeQuantError, ValueError):
    """An export option is unknown, has a value outside its choices, or cannot be combined with another."""


class DataError(EdgeQuantError, ValueError):
    """A data set is missing, empty, without labels where they are needed, or does not fit the model."""


class ModelsFileError(EdgeQuantError, ValueError):
    """A file of models to measure, or of their results, is not as it should be: an unknown key, a missing file, ..."""


class UnsupportedModelError(EdgeQuantError, ValueError):
    """The model or file cannot be used: not a YOLO model, an unknown head, quantized already, or not runnable."""


class ContractError(UnsupportedModelError):
    """A file does not say what it holds, is damaged, or was made by a later version; see docs/metadata.md."""


class RecipeError(EdgeQuantError, RuntimeError):
    """A rule of a quantization recipe matched nothing in the graph, so the file would not be what was asked for."""


class VerificationError(EdgeQuantError, RuntimeError):
    """The INT8 model does not find what its float model finds, so no file was written."""


class MissingToolError(EdgeQuantError, RuntimeError):
    """A package or program that the target needs is not installed."""


class ConversionError(EdgeQuantError, RuntimeError):
    """A converter between model formats failed."""


class CompilerError(EdgeQuantError, RuntimeError):
    """A vendor's compiler was there and failed."""


class UnsupportedVersionError(EdgeQuantError, RuntimeError):
    """The installed Ultralytics is outside the range that the patches were tested with."""


class TrainingError(EdgeQuantError, RuntimeError):
    """Fine-tuning diverged: the loss is not a number or exploded. The last good checkpoint is kept and named."""


class InferenceError(EdgeQuantError, ValueError):
    """The runtime was given a file, an image or a setting that it cannot work with."""


class OutputError(EdgeQuantError, OSError):
    """The result could not be written, for example because the disk is full; nothing half-written was left."""
