import importlib
import subprocess
import sys
import types
import uuid

import pytest

from yolo_edgequant.needs import missing
from yolo_edgequant.processes import environment

FILES = {
    "__init__.py": """
import json
import os.path as paths
from collections import OrderedDict
from typing import TYPE_CHECKING

from . import tools
from .stars import *
from .tools import helper as assistant
from gone_from_the_index import anything

if TYPE_CHECKING:
    from .models import Detector

SETTINGS: dict = {"of a dict": 1}
first, (second, *others) = 1, (2, 3)
""",
    "tools.py": """
import functools
from elsewhere import *
from outside import Foreign


def helper(path, split="val", /, more=1, *rest, names, only=None):
    inside = 1


async def later(path):
    pass


@functools.cache
def decorated(path, *, shape=(lambda hidden: hidden)(1)):
    pass


def anything(path, **arguments):
    pass


if Foreign:
    def under_if(path):
        pass
elif helper:
    UNDER_ELIF = 1
else:
    UNDER_ELSE = 1

try:
    from .models import Detector as Tried
except ImportError:
    UNDER_EXCEPT = None
else:
    UNDER_TRY_ELSE = 1
finally:
    UNDER_FINALLY = 1

with open("file") as handle:
    UNDER_WITH = 1
""",
    "stars.py": """
from .deeper.base import *

OF_STARS = 1
""",
    "deeper/__init__.py": """
from ..tools import helper
from .base import Base as Renamed
""",
    "deeper/base.py": """
class Base:
    \"\"\"Names in a text, like `in_a_text`, are none.\"\"\"

    level = 3
    annotated: int = 4
    declared: str

    def __init__(self, model):
        self.model = model
        self.weight, (self.scale, self.shift) = 1, (2, 3)
        self.count += 1
        self.typed: int = 1
        other = model
        other.of_another = 1
        local = self.only_read

    def run(self, im, *, batch=1):
        pass

    @property
    def size(self):
        return self.model.size

    @staticmethod
    def static(path):
        pass

    class Inner:
        pass
""",
    "models.py": """
import elsewhere
from elsewhere import Parent

from .deeper import Renamed
from .deeper.base import Base


class Middle(Renamed):
    middle = 1


class Detector(Middle, Parent):
    def train(self, trainer=None):
        self.loss = 1


class Foreign(elsewhere.Module, Parent):
    pass


class Overrides(Base):
    def run(self, image):
        pass
""",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The name of a package on sys.path that fails when anyone imports it."""
    folder = tmp_path_factory.mktemp("packages")
    name = f"toy_{uuid.uuid4().hex}"
    for path, source in FILES.items():
        file = folder / name / path
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(f"{source}\nraise SystemExit('imported')\n")
    (folder / name / "compiled.so").write_bytes(b"")
    (folder / name / "bare").mkdir()
    (folder / name / "bare" / "inside.py").write_text("X = 1\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield name
    sys.path.remove(str(folder))


THERE = [
    *(":json", ":paths", ":OrderedDict", ":TYPE_CHECKING", ":anything"),  # imported from other packages
    *(":SETTINGS", ":first", ":second", ":others"),
    ":assistant(names)",
    *(":Detector", ":Detector.train(trainer)", ":Detector.loss"),
    *(":tools", ":models", ":deeper", ".deeper:base", ".bare.inside:X"),  # modules are names, too
    *(":OF_STARS", ":Base", ":Base.run(im)"),  # through stars, and stars of stars
    *(".tools:helper(names, only, more)", ".tools:later(path)", ".tools:decorated(path, shape)"),
    *(".tools:anything(whatever, it, takes)", ".tools:under_if(path)"),
    *(".tools:UNDER_ELIF", ".tools:UNDER_ELSE", ".tools:Tried", ".tools:Tried.train(trainer)"),
    *(".tools:UNDER_EXCEPT", ".tools:UNDER_TRY_ELSE", ".tools:UNDER_FINALLY", ".tools:UNDER_WITH"),
    *(".deeper:helper(names)", ".deeper:Renamed.level"),
    *(".deeper.base:Base.level", ".deeper.base:Base.annotated", ".deeper.base:Base.declared"),
    *(".deeper.base:Base.model", ".deeper.base:Base.weight", ".deeper.base:Base.scale", ".deeper.base:Base.shift"),
    *(".deeper.base:Base.count", ".deeper.base:Base.typed", ".deeper.base:Base.size", ".deeper.base:Base.Inner"),
    *(".deeper.base:Base.run(im, batch)", ".deeper.base:Base.static(path)", ".deeper.base:Base.run()"),
    *(".models:Detector.middle", ".models:Detector.size", ".models:Detector.run(im, batch)", ".models:Foreign"),
    ".models:Overrides.run(image)",
]

GONE = {
    ":helper": "{} has no helper",  # is there by another name
    ":Base.gone": "{} has no Base.gone",
    ":UNDER_IF": "{} has no UNDER_IF",
    ".nowhere:name": "there is no module {}.nowhere",
    ".nowhere.deeper:name": "there is no module {}.nowhere.deeper",
    ".tools.deeper:name": "there is no module {}.tools.deeper",  # tools is no package
    ".compiled:name": "there is no module {}.compiled",
    ".bare:gone": "there is no module {}.bare",  # a folder without a source of its own
    ".tools:inside": "{}.tools has no inside",  # a variable of a function
    ".tools:rest": "{}.tools has no rest",  # a parameter
    ".tools:helper(name)": "{}.tools.helper has no parameter name",
    ".tools:helper(rest)": "{}.tools.helper has no parameter rest",
    ".tools:helper(names, other, third)": "{}.tools.helper has no parameter other and third",
    ".tools:decorated(hidden)": "{}.tools.decorated has no parameter hidden",
    ".tools:later(split)": "{}.tools.later has no parameter split",
    ":assistant(name)": "{}.assistant has no parameter name",
    ".stars:OF_STAR": "{}.stars has no OF_STAR",
    ".deeper:Base": "{}.deeper has no Base",
    ".deeper.base:Base.in_a_text": "{}.deeper.base has no Base.in_a_text",
    ".deeper.base:Base.only_read": "{}.deeper.base has no Base.only_read",
    ".deeper.base:Base.of_another": "{}.deeper.base has no Base.of_another",
    ".deeper.base:Base.other": "{}.deeper.base has no Base.other",
    ".deeper.base:level": "{}.deeper.base has no level",
    ".deeper.base:Base.run(image)": "{}.deeper.base.Base.run has no parameter image",
    ".models:Detector.gone": "{}.models has no Detector.gone",
    ".models:Detector.run(image)": "{}.models.Detector.run has no parameter image",
    ".models:Overrides.run(im)": "{}.models.Overrides.run has no parameter im",
    ".models:Foreign.forward": "{}.models has no Foreign.forward",  # nothing here defines it
}


@pytest.mark.parametrize("need", THERE)
def test_what_is_there_is_not_missing(package, need):
    assert missing(package + need) is None


@pytest.mark.parametrize(("need", "clause"), GONE.items())
def test_what_is_gone_is_named(package, need, clause):
    assert missing(package + need) == clause.format(package)


def test_a_package_that_is_not_installed():
    assert missing("nobody_has_this:name") == "there is no module nobody_has_this"
    assert missing("nobody_has_this.at.all:name") == "there is no module nobody_has_this.at.all"


def test_a_module_without_a_source_is_none():
    assert missing("sys:path") == "there is no module sys"


def test_looking_imports_nothing(package):
    for need in (*THERE, *GONE):
        missing(package + need)
    assert [name for name in sys.modules if name.partition(".")[0] in {package, "elsewhere", "outside"}] == []


def test_a_package_that_is_imported_already_is_looked_at_in_its_place(package, monkeypatch):
    name = f"already_{package}"
    folder = importlib.util.find_spec(package).submodule_search_locations[0]
    imported = types.ModuleType(name)
    imported.__spec__ = importlib.machinery.ModuleSpec(name, None, origin=f"{folder}/__init__.py", is_package=True)
    imported.__spec__.submodule_search_locations.append(folder)
    monkeypatch.setitem(sys.modules, name, imported)
    assert missing(f"{name}.tools:helper(names)") is None
    assert missing(f"{name}.tools:gone") == f"{name}.tools has no gone"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from .second import *\nX = 1", "from .first import *\nY = 1"),
        ("from .second import name", "from .first import name"),
        ("class name(name):\n    pass", ""),
    ],
)
def test_names_that_go_round_in_a_circle_are_missing(tmp_path, monkeypatch, first, second):
    package = f"circle_{uuid.uuid4().hex}"
    (tmp_path / package).mkdir()
    for name, source in {"__init__": "", "first": first, "second": second}.items():
        (tmp_path / package / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert missing(f"{package}.first:name.gone") == f"{package}.first has no name.gone"


def test_a_source_is_read_in_the_encoding_that_it_states(tmp_path, monkeypatch):
    package = f"latin_{uuid.uuid4().hex}"
    (tmp_path / f"{package}.py").write_bytes("# coding: latin-1\nüber = 'é'\n".encode("latin-1"))
    monkeypatch.syspath_prepend(tmp_path)
    assert missing(f"{package}:über") is None


def test_the_installed_ultralytics_is_read_without_being_imported(tmp_path):
    code = """
import sys
from yolo_edgequant.needs import missing
print([missing(need) for need in sys.argv[1:]])
print(sorted({"torch", "ultralytics", "cv2", "numpy"} & set(sys.modules) - before))
"""
    code = f"import sys, yolo_edgequant\nbefore = set(sys.modules)\n{code}"
    needs = ("ultralytics:YOLO", "ultralytics.nn.modules:Detect.cv2", "ultralytics.nn.modules:Detect.cv22")
    shown = subprocess.run(
        [sys.executable, "-c", code, *needs],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "[None, None, 'ultralytics.nn.modules has no Detect.cv22']\n[]\n"
