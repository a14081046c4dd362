"""What an installed package has, read from its source: nothing is imported, so looking costs no torch.

A need is a text: ``package.module:name``, ``package.module:Class.attribute``, or either with the parameters that are
given by name, ``package.module:function(path, split)``. Attributes that methods set on ``self`` count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def missing(need: str) -> str | None:
    """What is not there of a need; None if all of it is.

    Args:
        need: as in the module's description.

    Returns:
        A clause, for example ``ultralytics.utils has no LOGGER``.
    """
    module, _, rest = need.partition(":")
    name, _, parameters = rest.partition("(")
    tree = _tree(module)
    if tree is None:
        return f"there is no module {module}"
    definition = _resolved(module, name.split(".")) or _tree(f"{module}.{name}")
    if definition is None:
        return f"{module} has no {name}"
    wanted = [parameter.strip() for parameter in parameters.rstrip(")").split(",") if parameter.strip()]
    if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)) and definition.args.kwarg is None:
        there = {
            argument.arg
            for argument in (*definition.args.posonlyargs, *definition.args.args, *definition.args.kwonlyargs)
        }
        if gone := [parameter for parameter in wanted if parameter not in there]:
            return f"{module}.{name} has no parameter {' and '.join(gone)}"
    return None


def forget_sources() -> None:
    """Let go of the sources that were read, 28 MB of Ultralytics'; what was found of each need is kept."""
    _tree.cache_clear()


#: Stands for something that another package defines, which is taken to be there.
_ELSEWHERE = ast.Pass()


def _resolved(module: str, names: list[str], way: frozenset[tuple[str, ...]] = frozenset()) -> ast.AST | None:
    """The statement that defines a name of a module, or an attribute of a class in it; None if nothing does.

    Args:
        module, names: where to look, and for what.
        way: on which this is reached, as ``from . import name`` in ``__init__.py`` leads back to itself.
    """
    tree = _tree(module)
    if tree is None or (module, *names) in way:
        return None
    way |= {(module, *names)}
    name, *rest = names
    for statement in _statements(tree.body):
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if name == (alias.asname or alias.name) or alias.name == "*":
                    source = _absolute(module, statement)
                    here = source.partition(".")[0] == module.partition(".")[0]
                    definition = _imported(source, alias, names, way) if here else _ELSEWHERE
                    if definition is not None and not (alias.name == "*" and definition is _ELSEWHERE):
                        return definition
        elif name in _defined(statement):
            if not rest or not isinstance(statement, ast.ClassDef):
                return statement
            return _attribute(module, statement, rest[0], way)
    return None


def _imported(source: str, alias: ast.alias, names: list[str], way: frozenset[tuple[str, ...]]) -> ast.AST | None:
    """What ``from source import alias`` brings, followed to where it is defined."""
    original = names if alias.name == "*" else [alias.name, *names[1:]]
    return _resolved(source, original, way) or (_tree(f"{source}.{alias.name}") if len(names) == 1 else None)


def _attribute(module: str, owner: ast.ClassDef, name: str, way: frozenset[tuple[str, ...]]) -> ast.AST | None:
    """What defines an attribute of a class: its body, a method that sets it on ``self``, or a base in this package."""
    for statement in _statements(owner.body):
        if name in _defined(statement):
            return statement
    for node in ast.walk(owner):
        if (
            isinstance(node, ast.Attribute)
            and node.attr == name
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            return node
    for base in owner.bases:
        if isinstance(base, ast.Name):
            definition = _resolved(module, [base.id, name], way)
            if definition is not None and definition is not _ELSEWHERE:
                return definition
    return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, those under ``if``, ``try`` and ``with`` included."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement defines by itself."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {
        node.id for target in targets if target is not None for node in ast.walk(target) if isinstance(node, ast.Name)
    }


def _absolute(module: str, statement: ast.ImportFrom) -> str:
    """The module that an import names, from inside another."""
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    package = parts if _file(module).name == "__init__.py" else parts[:-1]
    package = package[: len(package) - (statement.level - 1)]
    return ".".join([*package, *([statement.module] if statement.module else [])])


@cache
def _file(module: str) -> Path | None:
    """The source of a module, found without importing the packages that it is in."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None
    places = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
    files = (file for place in places for file in (place / "__init__.py", place.with_suffix(".py")))
    return next(filter(Path.is_file, files), None)


@cache
def _tree(module: str) -> ast.Module | None:
    file = _file(module)
    return None if file is None else ast.parse(file.read_bytes())
