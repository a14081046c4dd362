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
import threading
import tokenize
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from types import ModuleType
from typing import Any

from .errors import MissingToolError, UnsupportedVersionError


@dataclass(frozen=True)
class Patch:
    """A function to wrap.

    Attributes:
        module: dotted name of the module that holds the target.
        target: name inside the module, for example ``Exporter.__call__``.
        replacement: name of a function, ``module:function``, called as ``function(original, *args, **kwargs)`` in the
            target's place; its module is imported at the first call.
        versions: the package versions that the patch was tested with, as in a requirement.
        why: one sentence.
    """

    module: str
    target: str
    replacement: str
    versions: str
    why: str

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
    _hooked: bool = False
    _contexts: int = 0
    _enabled_outside: bool = False
    _modules: dict[str, ModuleType] = field(default_factory=dict)
    _originals: dict[Patch, tuple[Any, Any]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def enabled(self) -> bool:
        """True while the patches are in force."""
        return self._enabled

    def enable(self, force: bool = False) -> None:
        """Apply every patch, now or when its module is imported. Twice is once.

        A target that does not exist disables all patches again; in a module that is imported later, its import fails.

        Args:
            force: apply to a version outside the tested range, too.

        Raises:
            MissingToolError: the distribution is not installed.
            UnsupportedVersionError: its version is outside the range that a patch was tested with, or lacks a target.
        """
        self._check_version(force)
        with self._lock:
            self._enabled = True
            for module in self._modules.values():
                self._apply(module)
        import wrapt

        if not self._hooked:  # outside the lock, which a thread needs to finish an import that is waited for here
            for name in self._by_module():
                wrapt.register_post_import_hook(self._arrived, name)
            self._hooked = True

    def disable(self) -> None:
        """Put the very objects back that the patches replaced."""
        with self._lock:
            self._enabled = False
            for patch, (owner, original) in reversed(self._originals.items()):
                setattr(owner, patch.attribute, original)
            self._originals.clear()

    @contextmanager
    def patched(self, force: bool = False) -> Iterator[None]:
        """Apply the patches for the duration of a ``with`` block; an outer state is kept.

        Blocks of several threads may overlap: the last to leave restores the state before the first.
        """
        with self._lock:
            if not self._contexts:
                self._enabled_outside = self._enabled
            self._contexts += 1
        try:
            self.enable(force)
            yield
        finally:
            with self._lock:
                self._contexts -= 1
                if not self._contexts and not self._enabled_outside:
                    self.disable()

    def describe(self) -> str:
        """A unified diff of each upstream file, with the reasons and versions of its patches above it.

        Raises:
            MissingToolError: the distribution is not installed.
            UnsupportedVersionError: its version lacks a target.
        """
        self._version()
        return "\n".join(self._describe(*item) for item in self._by_module().items())

    def _describe(self, name: str, patches: list[Patch]) -> str:
        module = importlib.import_module(name)
        with self._lock:
            originals = {patch: self._originals.get(patch) or self._target(patch, module) for patch in patches}
        return _diff(module, {patch: original for patch, (_, original) in originals.items()})

    def _by_module(self) -> dict[str, list[Patch]]:
        modules: dict[str, list[Patch]] = {}
        for patch in self.patches:
            modules.setdefault(patch.module, []).append(patch)
        return modules

    def _version(self) -> str:
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            raise MissingToolError(
                f"{self.distribution} is not installed; install it with: pip install {self.distribution}"
            ) from None

    def _check_version(self, force: bool) -> None:
        from packaging.specifiers import SpecifierSet

        version = self._version()
        for patch in self.patches:
            if not force and version not in SpecifierSet(patch.versions):
                raise UnsupportedVersionError(
                    f"{self.distribution} {version} is outside the range that yolo_edgequant was tested with "
                    f"({patch.versions}); install a version in it, or set YOLO_EDGEQUANT_FORCE=1 to try this one"
                )

    def _arrived(self, module: ModuleType) -> None:
        module = importlib.import_module(module.__name__)  # waits if another thread is in the middle of importing it
        with self._lock:
            self._modules[module.__name__] = module
            if self._enabled:
                self._apply(module)

    def _apply(self, module: ModuleType) -> None:
        """Apply the module's patches, or disable all if a target does not exist."""
        try:
            for patch in self.patches:
                if patch.module == module.__name__ and patch not in self._originals:
                    owner, original = self._target(patch, module)
                    self._originals[patch] = owner, original
                    setattr(owner, patch.attribute, _replaced(patch, original))
        except UnsupportedVersionError:
            self.disable()
            raise

    def _target(self, patch: Patch, module: ModuleType) -> tuple[Any, Any]:
        """The class or module that holds the target, and the target."""
        try:
            owner = functools.reduce(getattr, patch.target.split(".")[:-1], module)
            return owner, vars(owner)[patch.attribute]
        except (AttributeError, KeyError):
            raise UnsupportedVersionError(
                f"{self.distribution} {self._version()} has no {patch.module}.{patch.target}, which yolo_edgequant "
                f"patches; install a version that it was tested with ({patch.versions})"
            ) from None


@functools.cache
def _resolved(name: str) -> Callable[..., Any]:
    """The function that a name of the form ``module:function`` stands for."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _replaced(patch: Patch, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return _resolved(patch.replacement)(original, *args, **kwargs)

    return replaced


def _diff(module: ModuleType, originals: dict[Patch, Any]) -> str:
    """The module's patches as a diff that can be applied, a line about each above it."""
    with tokenize.open(inspect.getsourcefile(module)) as source:
        before = source.readlines()
    sources = {p: inspect.getsourcelines(_undecorated(f, p.attribute)) for p, f in originals.items()}
    after = before.copy()
    for patch, (lines, start) in sorted(sources.items(), key=lambda item: item[1][1], reverse=True):
        after[start - 1 : start - 1 + len(lines)] = _spliced(patch, lines)
    path = module.__name__.replace(".", "/") + ".py"
    diff = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}")
    about = [f"# {patch.target} ({patch.versions}): {patch.why}\n" for patch in originals]
    return "".join(about + [line if line[-1] == "\n" else f"{line}\n\\ No newline at end of file\n" for line in diff])


def _spliced(patch: Patch, lines: list[str]) -> list[str]:
    """Upstream's function under another name, and one in its place that hands it to the replacement."""
    name = patch.attribute
    kept = f"_upstream_{name.strip('_')}"
    owner = patch.target.rpartition(".")[0]
    module, _, function = patch.replacement.partition(":")
    indent = lines[0][: -len(lines[0].lstrip())]
    return [
        *(re.sub(rf"\bdef {re.escape(name)}\(", f"def {kept}(", line) for line in lines),
        "\n",
        f"{indent}def {name}(*args, **kwargs):\n",
        f'{indent}    """{patch.why[0].upper()}{patch.why[1:]}."""\n',
        f"{indent}    from {module} import {function} as replacement\n",
        "\n",
        f"{indent}    return replacement({owner}{'.' if owner else ''}{kept}, *args, **kwargs)\n",
    ]


def _undecorated(function: Any, name: str) -> Any:
    """The function of that name inside a decorator's closure, or the function itself."""
    inside = (cell.cell_contents for cell in function.__closure__ or ())
    return next((f for f in inside if getattr(f, "__name__", None) == name), function)
