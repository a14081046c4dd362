import ast
import inspect
from pathlib import Path

import pytest

import yolo_edgequant
from yolo_edgequant import errors
from yolo_edgequant.errors import EdgeQuantError

PACKAGE = Path(yolo_edgequant.__file__).parent
ERRORS = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}

#: What is raised and is not ours, by file: what a protocol asks for, what is caught on the spot, what builds ours.
OF_OTHERS = {
    ("__init__.py", "AttributeError"),
    ("bench/models.py", "ValueError"),  # caught where the file is read
    ("cli.py", "SystemExit"),
    ("cli.py", "typer.Exit"),
    ("finetuning.py", "ValueError"),
    ("finetuning.py", "_diverged"),
    ("inspection/read_openvino.py", "ValueError"),  # these two are caught where the reader is called
    ("inspection/read_tflite.py", "ValueError"),
    ("runtime/accuracy.py", "ValueError"),  # caught at once
    ("strict_table.py", "ValueError"),  # each reader makes it its own
    ("targets/devices.py", "ValueError"),  # a profile of ours that is not as it should be
    ("targets/placement.py", "ValueError"),
    ("upstream/compat.py", "FileNotFoundError"),
    ("upstream/data.py", "FileNotFoundError"),
}


def raises(file):
    """Each ``raise`` of a file: the exception's name, the node, and the innermost function around it."""

    def walk(node, function):
        for child in ast.iter_child_nodes(node):
            inner = child if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
            if isinstance(child, ast.Raise) and child.exc is not None:
                call = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
                yield ast.unparse(call), child, inner
            yield from walk(child, inner)

    return list(walk(ast.parse(file.read_text()), None))


RAISED = [
    (file.relative_to(PACKAGE).as_posix(), name, node, function)
    for file in sorted(PACKAGE.rglob("*.py"))
    for name, node, function in raises(file)
]


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_ours_and_also_what_a_stranger_would_catch(name):
    error = ERRORS[name]
    assert issubclass(error, EdgeQuantError)
    assert error.__doc__
    if error is not EdgeQuantError:
        assert issubclass(error, (ValueError, RuntimeError, OSError))
    assert str(error("one line")) == "one line"


def test_a_damaged_file_is_a_model_that_cannot_be_used():
    assert issubclass(errors.ContractError, errors.UnsupportedModelError)


def test_the_errors_named_at_the_top_are_these():
    assert yolo_edgequant.EdgeQuantError is errors.EdgeQuantError
    assert yolo_edgequant.UnsupportedVersionError is errors.UnsupportedVersionError


def test_nothing_else_is_raised_on_purpose():
    ours = {*ERRORS, "WorkerError"}
    assert {(file, name) for file, name, _, _ in RAISED if name not in ours} == OF_OTHERS


def test_every_error_is_raised_somewhere():
    assert {name for _, name, _, _ in RAISED} >= set(ERRORS) - {"EdgeQuantError"}


def test_every_message_is_one_line():
    texts = [
        (file, node.lineno, part.value)
        for file, _, node, _ in RAISED
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    assert len(texts) > 100
    assert [text for text in texts if "\n" in text[2]] == []


def test_a_public_function_names_the_errors_that_it_raises_itself():
    unnamed = [
        f"{file}:{node.lineno} {function.name} raises {name}"
        for file, name, node, function in RAISED
        if name in ERRORS and not function.name.startswith("_") and name not in (ast.get_docstring(function) or "")
    ]
    # a command's docstring is its help
    assert [line for line in unnamed if not line.startswith("cli.py")] == []
