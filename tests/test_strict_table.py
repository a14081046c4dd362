import re

import pytest

from yolo_edgequant.strict_table import StrictTable, tomllib

TEXT = """
name = "x"
names = ["a", "b"]
count = 3
counts = [1, 2]
flag = true
[inner]
key = "y"
[[listed]]
key = "z"
"""


def table(text=TEXT):
    return StrictTable("file.toml", tomllib.loads(text))


def test_it_gives_what_is_there():
    read = table()
    assert (read.text("name"), read.texts("names"), read.whole("count")) == ("x", ("a", "b"), 3)
    assert (read.wholes("counts"), read.flag("flag"), read.choice("name", ("x", "y"))) == ((1, 2), True, "x")
    assert read.below("inner").text("key") == "y"
    assert read.entries("listed", lambda one: one.text("key")) == ("z",)
    assert (read.optional("other", read.text), read.optional("name", read.text)) == (None, "x")
    assert read.entries("others", lambda one: one) == ()
    read.end()


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda t: t.text("other"), "file.toml lacks 'other'"),
        (lambda t: t.text("count"), "file.toml: 'count' is 3, not a text"),
        (lambda t: t.whole("flag"), "file.toml: 'flag' is True, not a positive whole number"),
        (lambda t: t.texts("counts"), "file.toml: 'counts' is [1, 2], not a list of texts"),
        (lambda t: t.flag("count"), "file.toml: 'count' is 3, not true or false"),
        (lambda t: t.choice("name", ("y", "z")), "file.toml: 'name' is 'x', not one of y, z"),
        (lambda t: t.below("name"), "file.toml: 'name' is 'x', not a table"),
        (lambda t: t.below("inner").text("other"), "file.toml, inner lacks 'other'"),
        (lambda t: t.below("inner").end(), "file.toml, inner: unknown key 'key'"),
        (lambda t: t.entries("listed", lambda one: None), "file.toml, listed[0]: unknown key 'key'"),
        (lambda t: StrictTable("file.toml, x", 3), "file.toml, x is 3, not a table"),
    ],
)
def test_what_is_not_as_it_should_be_is_an_error_that_says_where(read, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        read(table())
