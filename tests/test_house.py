"""The rules of docs/architecture.md, read off the sources: nothing of the package is imported here."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "yolo_edgequant"

#: From the ground up; what stands in one line is on one floor and imports nothing of it.
FLOORS = (
    *(("errors",), ("_version",), ("log",), ("int8",), ("histogram",), ("files",), ("needs",), ("options",)),
    *(("strict_table",), ("machine",)),
    *(("processes",), ("patching",), ("contract",)),
    *(("decoding",), ("level_shift", "targets"), ("upstream",), ("runtime",)),
    ("tflite", "openvino"),
    *(("verification",), ("training",), ("pipeline",), ("inspection",), ("patches",)),
    ("demo",),
    ("bench",),
    *(("describe",), ("doctor", "series", "target_report"), ("finetuning",), ("cli",), ("__init__",)),
)

#: Why a file imports inside functions. Files without an entry may not.
LATE = {
    "bench/worker.py": "each step is a process of its own and imports what it needs, so that memory and time compare",
    "cli.py": "the help is there in a moment, and `run` works without torch",
    "demo/train.py": "its constants are read where torch is not needed",
    "describe.py": "importing the package must not import torch",
    "finetuning.py": "one of the two file families, whose packages may be missing",
    "inspection/edgetpu.py": "where Ultralytics keeps a compiler is asked only where none is on PATH: it imports torch",
    "inspection/examine.py": "OpenVINO is an extra's",
    "inspection/noise.py": "OpenVINO and OpenCV are extras', and only images need them",
    "inspection/reference.py": "torch and Ultralytics are for checkpoints alone",
    "patching.py": "a device that only infers has no Ultralytics to patch",
    "patches/conversion.py": "one of the two file families, whose packages may be missing",
    "patches/doors.py": "what is gone in this Ultralytics stops no call that does without it",
    "runtime/letterbox.py": "OpenCV is optional on a device",
    "tflite/conversion.py": "litert-torch takes seconds to import, and is an extra's",
    "tflite/saved_model.py": "onnx and onnx2tf take seconds to import, and are an extra's",
}

#: Words that say nothing of what a variable holds, and in how many places one may still stand.
EMPTY_WORDS = {"made": 0, "seen": 0, "judge": 0, "found": 4, "chosen": 2}

#: Modules without a test file of their own, and where they are tested.
UNMIRRORED = {
    "_version.py": "test_cli.py",  # a constant
    "patches/conversion.py": "patches/test_exporter.py",  # the two ways of an export
    "pipeline/int8_build.py": "pipeline/test_finish.py",  # a protocol
    "pipeline/mixed_precision.py": "pipeline/test_finish.py",  # the search is a step of the finish
    "training/functions.py": "training/test_tracing.py",  # a table
    "upstream/models.py": "test_cli.py",  # names of Ultralytics'
}

#: Test files that are of more than a module.
OF_THE_WHOLE = {
    "test_examples.py",
    "test_consumers.py",
    "test_fuzz.py",
    "test_house.py",
    "test_interpreters.py",
    "test_profiles.py",
    "test_package.py",
    "test_readme.py",
    "test_versions.py",
    "test_upstream_exports.py",
    "test_upstream_patches.py",
    "patches/test_swapped_models.py",
    "runtime/test_alone.py",
    "runtime/test_detector_on_exports.py",
    "upstream/test_prompts.py",
}


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        file: that imports it, relative to the package.
        line: in the file.
        module: dotted name; of the package's own modules the whole name.
        late: inside a function.
    """

    file: str
    line: int
    module: str
    late: bool


def name_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name_of(PACKAGE / file): file for file in SOURCES}


def imported(file, node):
    """The modules that a statement imports; of ``from package import module`` the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = []
    if node.level:
        package = [*PACKAGE.relative_to(ROOT).parts, *Path(file).parent.parts]
        base = package[: len(package) - node.level + 1]
    source = ".".join([*base, *([node.module] if node.module else [])])
    return [full if (full := f"{source}.{alias.name}") in MODULES else source for alias in node.names]


def late_nodes(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return {inner for function in functions for inner in ast.walk(function) if isinstance(inner, ast.stmt)}


IMPORTS = [
    Import(file, node.lineno, module, node in late)
    for file, tree in SOURCES.items()
    for late in [late_nodes(tree)]
    for node in ast.walk(tree)
    for module in imported(file, node)
]
OWN = [one for one in IMPORTS if one.module.partition(".")[0] == PACKAGE.name]


def room(file):
    """The folder that a file stands in, or the module that it is, on the ground or on top."""
    return Path(file).parts[0].removesuffix(".py")


LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def test_the_order_names_every_folder_and_every_file_outside_of_one():
    assert {room(file) for file in SOURCES} == set(LEVEL)
    assert sum(map(len, FLOORS)) == len(LEVEL), "each once"


def test_the_imports_are_read_at_all():
    assert len(OWN) > 250
    assert {one.file for one in OWN if one.module == "yolo_edgequant.errors"} >= {"contract.py", "tflite/recipe.py"}
    assert {"yolo_edgequant.bench.run", "yolo_edgequant.finetuning"} <= {one.module for one in OWN if one.late}
    assert all(one.module in MODULES for one in OWN)


def test_no_folder_imports_one_above_it_or_beside_it():
    climbs = [
        f"{one.file}:{one.line} imports {one.module}"
        for one in OWN
        for above in [room(MODULES[one.module])]
        if above != room(one.file) and LEVEL[above] >= LEVEL[room(one.file)]
    ]
    assert climbs == []


def cycle(graph):
    """A way through a graph that ends where it began, or none."""
    done = set()

    def walk(node, way):
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return None
        for neighbour in sorted(graph.get(node, ())):
            circle = walk(neighbour, [*way, node])
            if circle:
                return circle
        done.add(node)
        return None

    return next(filter(None, (walk(node, []) for node in sorted(graph))), None)


def test_no_two_files_import_each_other():
    graph = {}
    for one in OWN:
        graph.setdefault(one.file, set()).add(MODULES[one.module])
    assert cycle(graph) is None
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}}) == ["b", "c", "b"]


def test_only_patches_and_upstream_import_ultralytics():
    others = {one.file for one in IMPORTS if one.module.partition(".")[0] == "ultralytics"}
    assert {room(file) for file in others} == {"patches", "upstream"}


def test_only_the_patches_bounds_and_the_doctor_look_at_a_version():
    """What differs between releases is looked for, not known from a number: upstream/compat.py."""
    of_files = {"contract.py", "targets/placement.py"}  # versions of a file and of its operators
    looking = {
        file
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if (isinstance(node, (ast.Import, ast.ImportFrom)) and {"packaging", "metadata"} & set(names_in(node)))
        or (isinstance(node, ast.Compare) and "version" in ast.unparse(node) and file not in of_files)
    }
    of_runs = {"runtime/board.py", "machine.py"}  # these report what was run with
    assert looking <= {"patching.py", "doctor.py", *of_runs}
    assert "patching.py" in looking


def names_in(node):
    """All the words of an import."""
    module = getattr(node, "module", None) or ""
    return [word for text in (module, *(alias.name for alias in node.names)) for word in text.split(".")]


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("runtime", {"numpy", "cv2", "ai_edge_litert", "tflite_runtime", "tensorflow", "openvino", "rich"}),
        ("targets", {"tomli"}),  # Python 3.10 has no tomllib
        ("contract", set()),
        ("options", set()),
        ("files", set()),
        ("needs", set()),
        ("patching", {"wrapt", "packaging"}),
    ],
)
def test_what_runs_on_a_device_and_the_ground_floor_need_little(place, allowed):
    import sys

    packages = {one.module.partition(".")[0] for one in IMPORTS if room(one.file) == place}
    assert packages - sys.stdlib_module_names - {PACKAGE.name} <= allowed


def test_no_folder_is_the_whole_house():
    lines = {}
    for file in SOURCES:
        lines[room(file)] = lines.get(room(file), 0) + len((PACKAGE / file).read_text().splitlines())
    largest = max(lines, key=lines.get)
    assert lines[largest] <= sum(lines.values()) / 5, f"{largest}/ has {lines[largest]} of {sum(lines.values())} lines"


def test_there_are_at_most_two_context_variables():
    variables = [
        f"{file}:{node.lineno}"
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).partition("[")[0].rpartition(".")[2] in {"ContextVar", "local"}
    ]
    assert len(variables) <= 2, variables


def test_imports_inside_functions_are_few_and_each_has_a_reason():
    statements = sorted({(one.file, one.line) for one in IMPORTS if one.late})
    print("\n".join(f"{file}:{line}" for file, line in statements))
    assert len(statements) <= 56
    assert {file for file, _ in statements} == set(LATE)


@pytest.mark.parametrize(("word", "most"), EMPTY_WORDS.items())
def test_a_variable_is_named_after_what_it_holds(word, most):
    places = [
        f"{file}:{node.lineno}"
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == word)
        or (isinstance(node, ast.arg) and node.arg == word)
    ]
    assert len(places) <= most, places


TESTS = {
    file.relative_to(ROOT / "tests").as_posix()
    for file in (ROOT / "tests").rglob("test_*.py")
    if file.parent.name != "accuracy"
}


def module_of(place):
    """The module that a test file is named after."""
    return (Path(place).parent / Path(place).name.removeprefix("test_")).as_posix()


def test_every_module_has_a_test_file_at_the_same_place():
    modules = {file for file in SOURCES if Path(file).name != "__init__.py"}
    assert sorted(modules - set(map(module_of, TESTS)) - set(UNMIRRORED)) == []
    assert sorted(set(UNMIRRORED) - modules) == [], "an exception for a file that is gone"
    assert {file for file in UNMIRRORED.values() if file not in TESTS} == set()


def test_every_test_file_is_at_the_place_of_what_it_tests():
    assert sorted(place for place in TESTS - OF_THE_WHOLE if module_of(place) not in SOURCES) == []
    assert OF_THE_WHOLE <= TESTS
