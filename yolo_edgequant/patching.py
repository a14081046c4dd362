"""Patches of another package's functions: a registry that applies and undoes them exactly.

A patch is data: where, what, which versions, why. Modules that are not imported yet are patched when they arrive, so
the order of imports does not matter. This module knows nothing of YOLO.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from types import ModuleType
from typing import Any

import wrapt
from packaging.specifiers import SpecifierSet

from .errors import MissingToolError, UnsupportedVersionError


@dataclass(frozen=True)
class Patch:
    """A function to wrap.

    Attributes:
        module: dotted name of the module that holds the target.
        target: name inside the module, for example ``Exporter.__call__``.
        replacement: called as ``replacement(original, *args, **kwargs)`` in the target's place.
        versions: the package versions that the patch was tested with, as in a requirement.
        why: one sentence.
    """

    module: str
    target: str
    replacement: Callable[..., Any]
    versions: str
    why: str

    def owner(self, module: ModuleType) -> Any:
        """The class or module that holds the target."""
        return functools.reduce(getattr, self.target.split(".")[:-1], module)

    @property
    def attribute(self) -> str:
        """The target's last name."""
        return self.target.rsplit(".", 1)[-1]


@dataclass
class Registry:
    """A set of patches of one distribution.

    Attributes:
        distribution: name of the patched distribution, for its installed version.
        patches: in the order in which they are applied.
    """

    distribution: str
    patches: tuple[Patch, ...]
    _enabled: bool = False
    _originals: dict[Patch, Any] = field(default_factory=dict)
    _hooked: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def enabled(self) -> bool:
        """True while the patches are in force."""
        return self._enabled

    def enable(self, force: bool = False) -> None:
        """Apply every patch, now or when its module is imported. Twice is once.

        Args:
            force: apply to a version outside the tested range, too.

        Raises:
            MissingToolError: the distribution is not installed.
            UnsupportedVersionError: its version is outside the range that a patch was tested with.
        """
        with self._lock:
            self._check_version(force)
            self._enabled = True
            for patch in self.patches:
                if not self._hooked:
                    wrapt.register_post_import_hook(functools.partial(self._arrived, patch), patch.module)
                elif patch.module in sys.modules:
                    self._apply(patch, sys.modules[patch.module])
            self._hooked = True

    def disable(self) -> None:
        """Put the very objects back that the patches replaced."""
        with self._lock:
            self._enabled = False
            for patch, original in reversed(self._originals.items()):
                setattr(patch.owner(sys.modules[patch.module]), patch.attribute, original)
            self._originals.clear()

    @contextmanager
    def patched(self, force: bool = False) -> Iterator[None]:
        """Apply the patches for the duration of a ``with`` block; an outer state is kept."""
        before = self._enabled
        self.enable(force)
        try:
            yield
        finally:
            if not before:
                self.disable()

    def describe(self) -> str:
        """Each patch as a unified diff of the upstream file, with its reason and versions above it."""
        return "\n".join(_describe(patch, self._original(patch)) for patch in self.patches)

    def _original(self, patch: Patch) -> Any:
        module = importlib.import_module(patch.module)
        return self._originals.get(patch, getattr(patch.owner(module), patch.attribute))

    def _check_version(self, force: bool) -> None:
        try:
            version = metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            raise MissingToolError(
                f"{self.distribution} is not installed; install it with: pip install {self.distribution}"
            ) from None
        for patch in self.patches:
            if not force and version not in SpecifierSet(patch.versions):
                raise UnsupportedVersionError(
                    f"{self.distribution} {version} is outside the range that yolo_edgequant was tested with "
                    f"({patch.versions}); install a version in it, or set YOLO_EDGEQUANT_FORCE=1 to try this one"
                )

    def _arrived(self, patch: Patch, module: ModuleType) -> None:
        with self._lock:
            if self._enabled:
                self._apply(patch, module)

    def _apply(self, patch: Patch, module: ModuleType) -> None:
        if patch in self._originals:
            return
        original = vars(patch.owner(module))[patch.attribute]

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            return patch.replacement(original, *args, **kwargs)

        self._originals[patch] = original
        setattr(patch.owner(module), patch.attribute, replaced)


def _describe(patch: Patch, original: Any) -> str:
    """The patch as a diff that can be applied: upstream's function is kept under another name and handed over."""
    name = patch.attribute
    lines, start = inspect.getsourcelines(_undecorated(original, name))
    kept = f"_upstream_{name.strip('_')}"
    owner = patch.target.rpartition(".")[0]
    indent = " " * 4 * bool(owner)
    ours = f"{patch.replacement.__module__}.{patch.replacement.__name__}"
    module, function = ours.rsplit(".", 1)
    after = [re.sub(rf"\bdef {re.escape(name)}\(", f"def {kept}(", line) for line in lines]
    after += [
        "\n",
        f"{indent}def {name}(*args, **kwargs):\n",
        f'{indent}    """{patch.why[0].upper()}{patch.why[1:]}."""\n',
        f"{indent}    from {module} import {function} as replacement\n",
        "\n",
        f"{indent}    return replacement({owner}{'.' if owner else ''}{kept}, *args, **kwargs)\n",
    ]
    path = patch.module.replace(".", "/") + ".py"
    file = inspect.getsource(sys.modules[patch.module]).splitlines(keepends=True)
    changed = [*file[: start - 1], *after, *file[start - 1 + len(lines) :]]
    diff = "".join(difflib.unified_diff(file, changed, f"a/{path}", f"b/{path}", n=3))
    return f"# {patch.target} ({patch.versions}): {patch.why}\n{diff}"


def _undecorated(function: Any, name: str) -> Any:
    """The function of that name inside a decorator's closure, or the function itself."""
    inside = (cell.cell_contents for cell in function.__closure__ or ())
    return next((f for f in inside if getattr(f, "__name__", None) == name), function)
