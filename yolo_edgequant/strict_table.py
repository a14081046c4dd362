"""A TOML table that is read strictly: an unknown or missing key, or a wrong type, is an error that says where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

__all__ = ["StrictTable", "tomllib"]


class StrictTable:
    """A table; every key that is there has to be asked for, before :meth:`end`.

    Args:
        where: what messages call it.
        values: what TOML has there.

    Raises:
        ValueError: that is no table. All methods raise it, too, for a value that is not as it should be.
    """

    def __init__(self, where: str, values: Any) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{where} is {values!r}, not a table")
        self.where, self.values = where, values
        self._asked: set[str] = set()

    def inner(self, where: str, values: Any) -> Any:
        """A table inside this one, of the same kind."""
        return type(self)(where, values)

    def taken(self, key: str, wanted: str, fits: Callable[[Any], bool]) -> Any:
        """The value of a key that `fits` accepts; `wanted` says to people what that is."""
        self._asked.add(key)
        if key not in self.values:
            raise ValueError(f"{self.where} lacks {key!r}")
        if not fits(self.values[key]):
            raise ValueError(f"{self.where}: {key!r} is {self.values[key]!r}, not {wanted}")
        return self.values[key]

    def text(self, key: str) -> str:
        """A text that is not blank."""
        return self.taken(key, "a text", lambda v: isinstance(v, str) and bool(v.strip()))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self.taken(key, "a list of texts", lambda v: _is_list(v, str)))

    def whole(self, key: str) -> int:
        """A whole number above 0."""
        return self.taken(key, "a positive whole number", lambda v: type(v) is int and v > 0)

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(self.taken(key, "a list of whole numbers", lambda v: _is_list(v, int)))

    def flag(self, key: str) -> bool:
        """True or false."""
        return self.taken(key, "true or false", lambda v: isinstance(v, bool))

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of a few texts."""
        return self.among(self.text(key), allowed, key)

    def among(self, value: str, allowed: tuple[str, ...], key: str) -> str:
        """A value that was read under `key`, if it is one of a few."""
        if value not in allowed:
            raise ValueError(f"{self.where}: {key!r} is {value!r}, not one of {', '.join(allowed)}")
        return value

    def optional(self, key: str, read: Callable[[str], Any]) -> Any:
        """What `read` makes of a key; None where it is not there."""
        return read(key) if key in self.values else None

    def below(self, key: str) -> Any:
        """The table of a key."""
        return self.inner(f"{self.where}, {key}", self.taken(key, "a table", lambda v: isinstance(v, dict)))

    def entries(self, key: str, read: Callable[[Any], Any]) -> tuple[Any, ...]:
        """What `read` makes of each of a list of tables; empty where there is none."""
        listed = self.taken(key, "a list of tables", lambda v: _is_list(v, dict)) if key in self.values else ()
        entries = []
        for number, values in enumerate(listed):
            table = self.inner(f"{self.where}, {key}[{number}]", values)
            entries.append(read(table))
            table.end()
        return tuple(entries)

    def end(self) -> None:
        """Refuse what nobody asked for."""
        if unknown := sorted(set(self.values) - self._asked):
            raise ValueError(f"{self.where}: unknown key {unknown[0]!r}")


def _is_list(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
