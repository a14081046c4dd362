"""Patches of another package's functions: a registry that applies and undoes them exactly.

A patch is data: where, what, what it needs, why. What is missing is found in the package's source before anything of it
is imported; such a patch is left out, and the purposes that it serves are refused when they are asked for. Modules that
are not imported yet are patched when they arrive, so the order of imports does not matter. This module knows nothing of
YOLO.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
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
from .log import LOGGER
from .needs import forget_sources, missing


@dataclass(frozen=True)
class Patch:
    """A function to wrap.

    Attributes:
        module: dotted name of the module that holds the target.
        target: name inside the module, for example ``Exporter.__call__``.
        replacement: name of a function, ``module:function``, called as ``function(original, *args, **kwargs)`` in the
            target's place; its module is imported at the first call.
        why: one sentence.
        parameters: of the target, by the names that the replacement knows them by.
        serves: the purposes that are not to be had without this patch; none if it is only a convenience.
        needs: what the replacement uses besides, as :mod:`.needs` reads it.
        is_door: this is where purposes are refused, so that without it nothing but a warning is left.
        first: the first version that has the target, where that is not the first of those that were tested.
        since, until: versions of the distribution between which there is something to patch; in others another patch
            does this one's work.
    """

    module: str
    target: str
    replacement: str
    why: str
    parameters: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    is_door: bool = False
    first: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def attribute(self) -> str:
        """The target's last name."""
        return self.target.rsplit(".", 1)[-1]

    @property
    def place(self) -> str:
        """The target, as a need."""
        return f"{self.module}:{self.target}"

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The target with and without its parameters, and the other needs."""
        return (self.place, f"{self.place}({', '.join(self.parameters)})", *self.needs)


@dataclass
class Registry:
    """A set of patches of one distribution.

    Attributes:
        distribution: name of the patched distribution, which is also its package's.
        patches: in the order in which they are applied.
        tested: the versions of the distribution that all of this was tried with, as in a requirement.
        override: environment variable that is 1 to try a version all the same.
    """

    distribution: str
    patches: tuple[Patch, ...]
    tested: str
    override: str
    _enabled: bool = False
    _forced: bool = False
    _hooked: bool = False
    _contexts: int = 0
    _outside: tuple[bool, bool] = (False, False)
    _modules: dict[str, ModuleType] = field(default_factory=dict)
    _originals: dict[Patch, tuple[Any, Any, bool]] = field(default_factory=dict)
    _warned: set[Patch] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def enabled(self) -> bool:
        """True while the patches are in force."""
        return self._enabled

    @property
    def version(self) -> str:
        """The installed version of the distribution.

        Raises:
            MissingToolError: it is not installed.
        """
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            raise MissingToolError(
                f"{self.distribution} is not installed; install it with: pip install {self.distribution}"
            ) from None

    @property
    def is_tested(self) -> bool:
        """True if the installed version is one of those that all of this was tried with."""
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(self.tested).contains(self.version, prereleases=True)

    @functools.cached_property
    def problems(self) -> dict[Patch, str]:
        """What is missing in the installed version, for each patch that lacks something of what it needs."""
        clauses = {}
        for patch in self._for_version():
            clause = next((clause for clause in map(missing, patch.all_needs) if clause is not None), None)
            if clause is not None:
                clauses[patch] = clause
        forget_sources()
        return clauses

    def require(self, purpose: str, asked: str) -> None:
        """Refuse a purpose that some patch serves which lacks something; not where the override is given.

        Args:
            purpose: one of those in :attr:`Patch.serves`.
            asked: what the user asked for, in words.

        Raises:
            UnsupportedVersionError: with what is missing, the tested versions and how to override.
        """
        if self._forced:
            return
        lacking = {patch: clause for patch, clause in self.problems.items() if purpose in patch.serves}
        if not lacking:
            return
        patch = next((patch for patch in lacking if patch.first is not None), next(iter(lacking)))
        tested = self.tested if patch.first is None else f"{self.tested}, and in it {patch.first} or later"
        raise UnsupportedVersionError(
            f"{asked} is not possible with {self.distribution} {self.version}: {lacking[patch]}, which "
            f"{patch.replacement.partition('.')[0]} needs; install a version that it was tested with "
            f"({tested}), or set {self.override}=1 to try this one all the same"
        )

    def in_force(self, target: str) -> bool:
        """True if a target is patched, or will be when its module is imported."""
        return self._enabled and any(patch.target == target for patch in self._applicable())

    def enable(self, force: bool | None = None) -> None:
        """Apply every patch whose needs are there, now or when its module is imported. Twice is once.

        Args:
            force: also apply those that lack something, as far as they have a target, and refuse no purpose; None to
                take that from the environment.

        Raises:
            MissingToolError: the distribution is not installed.
        """
        _ = self.version
        with self._lock:
            forced = os.environ.get(self.override) == "1" if force is None else force
            if self._enabled and forced != self._forced:
                self.disable()
            self._enabled, self._forced = True, forced
            applicable = self._applicable()
            for module in self._modules.values():
                self._apply(module, applicable)
        import wrapt

        if not self._hooked:  # outside the lock, which a thread needs to finish an import that is waited for here
            for name in dict.fromkeys(patch.module for patch in self.patches):
                wrapt.register_post_import_hook(self._arrived, name)
            self._hooked = True

    def disable(self) -> None:
        """Put the very objects back that the patches replaced."""
        with self._lock:
            self._enabled = False
            for patch, (owner, original, inherited) in reversed(self._originals.items()):
                if inherited:
                    delattr(owner, patch.attribute)
                else:
                    setattr(owner, patch.attribute, original)
            self._originals.clear()

    @contextmanager
    def patched(self, force: bool | None = None) -> Iterator[None]:
        """Apply the patches for the duration of a ``with`` block; an outer state is kept.

        Blocks of several threads may overlap: the last to leave restores the state before the first.
        """
        with self._lock:
            if not self._contexts:
                self._outside = self._enabled, self._forced
            self._contexts += 1
        try:
            self.enable(force)
            yield
        finally:
            with self._lock:
                self._contexts -= 1
                enabled, forced = self._outside
                if not self._contexts and not enabled:
                    self.disable()
                elif not self._contexts and self._enabled:
                    self.enable(forced)

    def describe(self) -> str:
        """A unified diff of each upstream file, with the reasons of its patches above it.

        Raises:
            MissingToolError: the distribution is not installed.
        """
        _ = self.version
        modules: dict[str, list[Patch]] = {}
        for patch in self._applicable():
            modules.setdefault(patch.module, []).append(patch)
        return "\n".join(self._describe(*item) for item in modules.items())

    def _describe(self, name: str, patches: list[Patch]) -> str:
        module = importlib.import_module(name)
        with self._lock:
            targets = {patch: self._originals.get(patch) or self._target(patch, module) for patch in patches}
        return _diff(module, {patch: original for patch, (_, original, inherited) in targets.items() if not inherited})

    def _applicable(self) -> list[Patch]:
        """The patches that can be applied to this version, and lack nothing or are forced."""
        return [
            patch
            for patch in self._for_version()
            if patch not in self.problems or (self._forced and missing(patch.place) is None)
        ]

    def _for_version(self) -> list[Patch]:
        """The patches that have something to patch in this version."""
        from packaging.version import Version

        version = Version(self.version)
        return [
            patch
            for patch in self.patches
            if (patch.since is None or version >= Version(patch.since))
            and (patch.until is None or version < Version(patch.until))
        ]

    def _arrived(self, module: ModuleType) -> None:
        module = importlib.import_module(module.__name__)  # waits if another thread is in the middle of importing it
        with self._lock:
            self._modules[module.__name__] = module
            if self._enabled:
                self._apply(module, self._applicable())

    def _apply(self, module: ModuleType, applicable: list[Patch]) -> None:
        """Apply those patches that are the module's."""
        for patch in applicable:
            if patch.module == module.__name__ and patch not in self._originals:
                self._originals[patch] = owner, original, _ = self._target(patch, module)
                setattr(owner, patch.attribute, _replaced(patch, original))
        for patch, clause in self.problems.items():
            if patch.is_door and patch.module == module.__name__ and patch not in {*self._originals, *self._warned}:
                self._warned.add(patch)
                LOGGER.warning(
                    f"{self.distribution} {self.version}: {clause}, which {patch.replacement.partition('.')[0]} needs; "
                    f"{' and '.join(patch.serves)} are {self.distribution}' own (tested: {self.tested})"
                )

    def _target(self, patch: Patch, module: ModuleType) -> tuple[Any, Any, bool]:
        """The class or module that holds the target, the target, and whether it is of a base class."""
        owner = functools.reduce(getattr, patch.target.split(".")[:-1], module)
        return owner, inspect.getattr_static(owner, patch.attribute), patch.attribute not in vars(owner)


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
    about = [f"# {patch.target}: {patch.why}\n" for patch in originals]
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
