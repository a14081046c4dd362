"""The two calls through which everything of ours is asked for: refused here where this Ultralytics lacks what it needs.

Nothing of Ultralytics is imported at the top, so that a name that is gone there stops no call that does without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..options import NAMES, current
from ..targets.formats import PROFILES, Format
from . import REGISTRY, TRAINING


def model_export(original: Callable[..., str], self: Any, **kwargs: Any) -> str:
    """``Model.export``, which takes our options besides its own.

    Raises:
        UnsupportedVersionError: this Ultralytics lacks what an export of ours needs.
    """
    if REGISTRY.in_force("Exporter.__call__"):
        from .exporter import model_export as ours

        return ours(original, self, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if name not in NAMES or value is not None}
    if asked := _asked_for(self.overrides | kwargs):
        for name in PROFILES:  # the same is missing for all of them
            REGISTRY.require(name, asked)
    return original(self, **kwargs)


def _asked_for(arguments: dict[str, Any]) -> str:
    """Whatever an export's arguments ask of us, in words; nothing if Ultralytics alone is meant."""
    given = {name: arguments[name] for name in sorted(NAMES & arguments.keys())} | current().given()
    name = str(arguments.get("format", "")).lower()
    int8 = arguments.get("int8") or str(arguments.get("quantize", "")).lower() in {"8", "int8", "w8a8"}
    if name in PROFILES and (int8 or name == Format.EDGETPU):
        given = {"format": name, "quantize": 8, **given}
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def model_train(original: Callable[..., Any], self: Any, trainer: Any = None, **kwargs: Any) -> Any:
    """``Model.train``, which takes ``activation`` besides its own arguments, and trains changed models as they are.

    Raises:
        OptionError: an unknown activation.
        UnsupportedVersionError: this Ultralytics lacks what that needs.
    """
    if REGISTRY.in_force("parse_model"):
        from .training import model_train as ours

        return ours(original, self, trainer, **kwargs)
    activation = kwargs.pop("activation", None)
    if activation is not None:
        REGISTRY.require(TRAINING, f"activation={activation!r}")
    return original(self, trainer, **kwargs)
