import ast
import importlib
import importlib.util
import inspect
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import types
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yolo_edgequant import describe, patching
from yolo_edgequant.errors import MissingToolError, UnsupportedVersionError
from yolo_edgequant.patches import REGISTRY
from yolo_edgequant.patching import Patch, Registry
from yolo_edgequant.processes import environment

SOURCE = '''\
def logged(function):
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def scale(value, factor=2):
    """Scale a value."""
    return value * factor


class Worker:
    def __init__(self, base):
        self.base = base

    def run(self, value):
        return self.base + value

    @logged
    def rest(self, hours=1):
        """Decorated."""
        return hours


class Senior(Worker):
    """Runs as any other."""


LAST = scale(1)
'''

REPLACEMENT = """\
def marked(original, *args, **kwargs):
    return "patched", original(*args, **kwargs)
"""


def marked(original, *args, **kwargs):
    return "patched", original(*args, **kwargs)


MARKED = f"{__name__}:marked"


OVERRIDE = "TOY_EDGEQUANT_FORCE"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A distribution `toy` 1.5 with one module, which is on sys.path and not imported yet."""
    monkeypatch.syspath_prepend(tmp_path)
    installed = {"toy": "1.5"}
    monkeypatch.setattr(patching.metadata, "version", lambda name: installed[name])
    monkeypatch.delenv(OVERRIDE, raising=False)
    package = f"toy_{uuid.uuid4().hex}"
    name = f"{package}.mod"
    file = tmp_path / package / "mod.py"
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text("")
    file.write_text(SOURCE)

    def patch(target="scale", replacement=MARKED, module=name, why="mark the result", **kwargs):
        return Patch(module, target, replacement, why, **kwargs)

    def registry(*targets, **kwargs):
        patches = (target if isinstance(target, Patch) else patch(target, **kwargs) for target in targets or ("scale",))
        return Registry("toy", tuple(patches), ">=1,<=1.5", OVERRIDE)

    yield types.SimpleNamespace(
        folder=tmp_path,
        package=package,
        name=name,
        file=file,
        patch=patch,
        registry=registry,
        install=lambda version: installed.update(toy=version),
        load=lambda: importlib.import_module(name),
    )
    for imported in (name, package):
        sys.modules.pop(imported, None)


def git_apply(folder, diff, *options):
    """Run git apply in a folder that belongs to no repository."""
    return subprocess.run(
        ["git", "apply", *options, "-"],
        input=diff,
        text=True,
        cwd=folder,
        capture_output=True,
        check=False,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)},
    )


def test_a_module_that_is_imported_already_is_patched(toy):
    module = toy.load()
    toy.registry().enable()
    assert module.scale(3, factor=3) == ("patched", 9)


def test_a_module_that_arrives_later_is_patched_without_being_imported_early(toy):
    toy.registry("scale", "Worker.run").enable()
    assert toy.name not in sys.modules
    module = toy.load()
    assert module.scale(3) == ("patched", 6)
    assert module.Worker(1).run(3) == ("patched", 4)
    assert module.LAST == 2, "patched only once the module is complete"


@pytest.mark.parametrize("loaded", [True, False])
def test_enabling_twice_wraps_once(toy, loaded):
    registry = toy.registry()
    if loaded:
        toy.load()
    registry.enable()
    registry.enable()
    module = toy.load()
    registry.enable()
    assert module.scale(3) == ("patched", 6)


def test_disable_restores_the_very_same_objects(toy):
    module = toy.load()
    function, method, decorated = module.scale, vars(module.Worker)["run"], vars(module.Worker)["rest"]
    registry = toy.registry("scale", "Worker.run", "Worker.rest")
    registry.enable()
    assert vars(module.Worker)["run"] is not method
    registry.disable()
    assert not registry.enabled
    assert module.scale is function
    assert vars(module.Worker)["run"] is method
    assert vars(module.Worker)["rest"] is decorated


def test_two_patches_of_one_function_wrap_each_other_and_are_undone_in_turn(toy):
    module = toy.load()
    original = module.scale
    registry = toy.registry(toy.patch(), toy.patch(why="mark it again"))
    registry.enable()
    assert module.scale(3) == ("patched", ("patched", 6))
    registry.disable()
    assert module.scale is original


def test_disable_restores_a_module_that_arrived_later(toy):
    registry = toy.registry()
    registry.enable()
    module = toy.load()
    original = module.scale.__wrapped__
    registry.disable()
    assert module.scale is original


def test_a_module_that_arrives_after_disable_stays_unpatched(toy):
    registry = toy.registry()
    registry.enable()
    registry.disable()
    module = toy.load()
    assert module.scale(3) == 6
    assert not hasattr(module.scale, "__wrapped__")


@pytest.mark.parametrize("arrives", ["before", "while disabled", "after"])
def test_enable_again_after_disable(toy, arrives):
    registry = toy.registry()
    if arrives == "before":
        toy.load()
    registry.enable()
    registry.disable()
    if arrives == "while disabled":
        toy.load()
    registry.enable()
    assert registry.enabled
    module = toy.load()
    assert module.scale(3) == ("patched", 6)
    registry.disable()
    assert module.scale(3) == 6


def test_disable_without_enable_does_nothing(toy):
    module = toy.load()
    original = module.scale
    toy.registry().disable()
    assert module.scale is original


def test_the_patched_function_keeps_name_and_signature(toy):
    module = toy.load()
    before = inspect.signature(module.scale)
    toy.registry().enable()
    assert inspect.signature(module.scale) == before
    assert (module.scale.__name__, module.scale.__doc__) == ("scale", "Scale a value.")


def test_the_replacement_receives_the_original_and_all_arguments(toy, monkeypatch):
    module = toy.load()
    original = vars(module.Worker)["run"]
    calls = []
    ours = types.SimpleNamespace(record=lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setitem(sys.modules, f"{toy.package}_ours", ours)
    toy.registry("Worker.run", replacement=f"{toy.package}_ours:record").enable()
    worker = module.Worker(1)
    worker.run(3)
    worker.run(value=4)
    assert calls == [((original, worker, 3), {}), ((original, worker), {"value": 4})]


@pytest.mark.parametrize("arrives", ["before", "after"])
def test_the_replacement_is_imported_at_the_first_call(toy, arrives):
    ours = f"{toy.package}_ours"
    (toy.folder / f"{ours}.py").write_text(REPLACEMENT)
    if arrives == "before":
        toy.load()
    registry = toy.registry(replacement=f"{ours}:marked")
    registry.enable()
    module = toy.load()
    assert ours not in sys.modules, "neither enabling nor the target's import needs it"
    registry.describe()
    assert ours not in sys.modules, "nor does the diff"
    assert module.scale(3) == ("patched", 6)
    assert ours in sys.modules


@pytest.mark.parametrize("name", ["{ours}:renamed", "{ours}_gone:marked"])
def test_a_replacement_that_is_gone_fails_loudly_at_the_first_call(toy, name):
    ours = f"{toy.package}_ours"
    (toy.folder / f"{ours}.py").write_text(REPLACEMENT)
    toy.registry(replacement=name.format(ours=ours)).enable()
    with pytest.raises((AttributeError, ModuleNotFoundError), match=ours):
        toy.load().scale(3)


@pytest.mark.parametrize(("target", "call"), [("scale", "scale"), ("Worker.run", "Worker._upstream_run")])
def test_the_diff_names_the_replacements_module_and_function(toy, target, call):
    added = [line[1:].strip() for line in toy.registry(target).describe().splitlines() if line.startswith("+")]
    module, _, function = MARKED.partition(":")
    assert f"from {module} import {function} as replacement" in added
    call = call if "." in call else f"_upstream_{call}"
    assert f"return replacement({call}, *args, **kwargs)" in added


def test_patched_is_a_context(toy):
    module = toy.load()
    original = module.scale
    registry = toy.registry()
    with registry.patched():
        assert module.scale(3) == ("patched", 6)
    assert module.scale is original
    assert not registry.enabled


def test_patched_restores_after_an_exception(toy):
    module = toy.load()
    original = module.scale
    registry = toy.registry()
    with pytest.raises(RuntimeError, match="inside"), registry.patched():
        raise RuntimeError("inside")
    assert module.scale is original


def test_patched_keeps_an_outer_enabled_state(toy):
    module = toy.load()
    registry = toy.registry()
    registry.enable()
    with registry.patched():
        pass
    assert registry.enabled
    assert module.scale(3) == ("patched", 6)
    registry.disable()
    with registry.patched(), registry.patched():
        pass
    assert not registry.enabled


def test_patched_contexts_of_two_threads_may_overlap(toy):
    module = toy.load()
    registry = toy.registry()
    first, second = registry.patched(), registry.patched()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    inside = module.scale(3)
    second.__exit__(None, None, None)
    assert inside == ("patched", 6)
    assert module.scale(3) == 6


@pytest.mark.parametrize("version", ["0.9", "1.5", "1.6", "7.0.dev1"])
def test_whatever_version_has_all_that_is_needed_is_patched(toy, version):
    toy.install(version)
    registry = toy.registry("scale", "Worker.run", serves=("work",))
    registry.enable()
    module = toy.load()
    assert (module.scale(3), module.Worker(1).run(3)) == (("patched", 6), ("patched", 4))
    assert registry.problems == {}
    registry.require("work", "working")


def test_a_refusal_names_the_first_version_that_has_what_is_missing(toy):
    later = toy.patch("gone", serves=("work",), first="1.7")
    registry = toy.registry(toy.patch("nowhere", serves=("work",)), later)
    with pytest.raises(UnsupportedVersionError, match=r"has no gone, .*\(>=1,<=1\.5, and in it 1\.7 or later\)"):
        registry.require("work", "working")


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        ("0.9", False),
        ("1", True),
        ("1.5.dev1", True),
        ("1.5", True),
        ("1.5.0", True),
        ("1.5.post1", False),
        ("1.5.1", False),
        ("2", False),
    ],
)
def test_a_version_is_tested_or_not(toy, version, tested):
    toy.install(version)
    assert toy.registry().is_tested is tested


@pytest.mark.parametrize(
    ("version", "applies"), [("1.3", False), ("1.4", True), ("1.4.9", True), ("1.5", False), ("2.0", False)]
)
def test_a_patch_is_for_the_versions_between_its_bounds(toy, version, applies):
    toy.install(version)
    bounded = toy.patch(since="1.4", until="1.5", serves=("work",), needs=(f"{toy.name}:gone",))
    registry = toy.registry(bounded, "Worker.run")
    registry.enable(force=True)
    module = toy.load()
    assert module.scale(3) == (("patched", 6) if applies else 6)
    assert registry.in_force("scale") is applies
    assert (bounded in registry.problems) is applies, "in other versions another patch does its work"
    assert ("# scale: " in registry.describe()) is applies
    registry.enable(force=False)
    if not applies:
        registry.require("work", "working")


def test_each_bound_is_enough(toy):
    registry = toy.registry(toy.patch(since="1.6"), toy.patch("Worker.run", until="1.5"), toy.patch("Worker.rest"))
    registry.enable()
    assert [registry.in_force(target) for target in ("scale", "Worker.run", "Worker.rest")] == [False, False, True]


@pytest.mark.parametrize(
    ("kwargs", "clause"),
    [
        ({"target": "renamed"}, "{} has no renamed"),
        ({"target": "Worker.renamed"}, "{} has no Worker.renamed"),
        ({"target": "Renamed.run"}, "{} has no Renamed.run"),
        ({"target": "Worker.run", "parameters": ("value", "speed")}, "{}.Worker.run has no parameter speed"),
        ({"target": "Worker.run", "needs": ("{}:Worker.base", "{}:Worker.pay")}, "{} has no Worker.pay"),
        ({"target": "Worker.run", "needs": ("{}:scale(value, by)",)}, "{}.scale has no parameter by"),
        ({"target": "Worker.run", "module": "{}_gone"}, "there is no module {}_gone"),
        ({"target": "Worker.run", "needs": ("{}_gone:f",)}, "there is no module {}_gone"),
    ],
)
def test_a_patch_that_lacks_something_is_left_out_and_said_to_be(toy, kwargs, clause):
    kwargs = {
        name: value.format(toy.name) if isinstance(value, str) else tuple(text.format(toy.name) for text in value)
        for name, value in kwargs.items()
    }
    lacking = toy.patch(**kwargs, serves=("work", "play"))
    registry = toy.registry(lacking, toy.patch("scale", parameters=("value", "factor"), serves=("play",)))
    assert registry.problems == {lacking: clause.format(toy.name)}
    assert toy.name not in sys.modules, "looking imports nothing"
    registry.enable()
    module = toy.load()
    assert registry.enabled
    assert module.scale(3) == ("patched", 6)
    assert module.Worker(1).run(3) == 4
    assert (registry.in_force(lacking.target), registry.in_force("scale")) == (False, True)
    for purpose in ("work", "play"):
        with pytest.raises(UnsupportedVersionError) as caught:
            registry.require(purpose, f"speed=3 at {purpose}")
        assert str(caught.value) == (
            f"speed=3 at {purpose} is not possible with toy 1.5: {clause.format(toy.name)}, which "
            f"{MARKED.partition('.')[0]} needs; install a version that it was "
            f"tested with (>=1,<=1.5), or set {OVERRIDE}=1 to try this one all the same"
        )
    registry.require("rest", "resting")
    registry.disable()
    assert module.scale(3) == 6


def test_a_purpose_is_refused_whether_enabled_or_not(toy):
    registry = toy.registry("renamed", serves=("work",))
    for change in (lambda: None, registry.enable, registry.disable):
        change()
        with pytest.raises(UnsupportedVersionError, match="has no renamed"):
            registry.require("work", "working")


def test_a_patch_that_serves_no_purpose_refuses_none(toy):
    registry = toy.registry("renamed")
    registry.enable()
    registry.require("work", "working")
    assert list(registry.problems.values()) == [f"{toy.name} has no renamed"]


FORCED = [
    pytest.param(True, None, True, id="asked for"),
    pytest.param(True, "0", True, id="asked for against the environment"),
    pytest.param(None, "1", True, id="by the environment"),
    pytest.param(None, "0", False, id="not by the environment"),
    pytest.param(None, "", False, id="empty in the environment"),
    pytest.param(None, None, False, id="not asked for"),
    pytest.param(False, "1", False, id="refused against the environment"),
]


@pytest.mark.parametrize(("force", "variable", "forced"), FORCED)
@pytest.mark.parametrize("loaded", [True, False])
def test_the_override_applies_what_has_a_target_and_refuses_nothing(toy, monkeypatch, force, variable, forced, loaded):
    if variable is not None:
        monkeypatch.setenv(OVERRIDE, variable)
    registry = toy.registry(
        toy.patch("scale", needs=(f"{toy.name}:gone",), serves=("work",)),
        toy.patch("Worker.run", parameters=("speed",)),
        toy.patch("Worker.renamed", serves=("rest",)),
        toy.patch("scale", module=f"{toy.package}.gone"),
        toy.patch("Worker.rest"),
    )
    module = toy.load() if loaded else None
    registry.enable(force=force)
    module = toy.load()
    worker = module.Worker(1)
    plain, marked = (6, 4), (("patched", 6), ("patched", 4))
    assert (module.scale(3), worker.run(3)) == (marked if forced else plain)
    assert worker.rest() == ("patched", 1)
    assert registry.in_force("scale") is forced
    assert not registry.in_force("Worker.renamed")
    for purpose in ("work", "rest"):
        if forced:
            registry.require(purpose, "working")
        else:
            with pytest.raises(UnsupportedVersionError):
                registry.require(purpose, "working")
    registry.disable()
    assert (module.scale(3), worker.run(3), worker.rest()) == (6, 4, 1)


def test_the_override_reaches_patched(toy, monkeypatch):
    module = toy.load()
    registry = toy.registry("scale", needs=(f"{toy.name}:gone",))
    with registry.patched():
        assert module.scale(3) == 6
    with registry.patched(force=True):
        assert module.scale(3) == ("patched", 6)
    monkeypatch.setenv(OVERRIDE, "1")
    with registry.patched():
        assert module.scale(3) == ("patched", 6)
    assert module.scale(3) == 6


def test_patched_keeps_what_an_outer_state_forces_and_refuses(toy):
    module = toy.load()
    registry = toy.registry("scale", needs=(f"{toy.name}:gone",), serves=("work",))
    registry.enable()
    with registry.patched(force=True):
        assert module.scale(3) == ("patched", 6)
        with registry.patched():
            pass
    assert registry.enabled
    assert module.scale(3) == 6
    with pytest.raises(UnsupportedVersionError):
        registry.require("work", "working")
    registry.enable(force=True)
    with registry.patched(force=False):
        assert module.scale(3) == 6
    assert module.scale(3) == ("patched", 6)
    registry.require("work", "working")


def test_what_was_forced_is_undone_by_enabling_without_force(toy):
    module = toy.load()
    original = module.scale
    registry = toy.registry("scale", "Worker.run", needs=(f"{toy.name}:gone",))
    registry.enable(force=True)
    registry.enable(force=False)
    assert registry.enabled
    assert not registry.in_force("scale")
    assert module.scale is original


@pytest.fixture
def warnings(caplog, monkeypatch):
    """The warnings of the package's logger, whatever became of its parents."""
    monkeypatch.setattr(patching.LOGGER, "propagate", False)
    patching.LOGGER.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    patching.LOGGER.removeHandler(caplog.handler)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_door_whose_target_is_gone_warns_once_when_its_module_arrives(toy, warnings, loaded):
    registry = toy.registry(
        toy.patch("open", serves=("work", "play"), is_door=True), toy.patch("renamed", serves=("rest",)), toy.patch()
    )
    if loaded:
        toy.load()
    registry.enable()
    assert len(warnings()) == loaded
    toy.load()
    (line,) = warnings()
    assert line.startswith(f"toy 1.5: {toy.name} has no open, which ")
    assert line.endswith(" needs; work and play are toy' own (tested: >=1,<=1.5)")
    assert "\n" not in line
    registry.enable()
    with registry.patched():
        pass
    assert len(warnings()) == 1, "once"


def test_a_door_that_is_there_does_not_warn(toy, warnings):
    registry = toy.registry(
        toy.patch(serves=("work",), is_door=True), toy.patch("Worker.run", needs=("gone:f",), serves=("work",))
    )
    registry.enable()
    toy.load()
    assert warnings() == []


def test_a_door_that_lacks_a_need_does_not_warn_where_it_is_forced(toy, warnings):
    registry = toy.registry("scale", parameters=("gone",), serves=("work",), is_door=True)
    registry.enable(force=True)
    assert toy.load().scale(3) == ("patched", 6)
    assert warnings() == []


def test_a_door_does_not_warn_before_its_module_arrives(toy, warnings):
    (toy.file.parent / "later.py").write_text("")
    later = f"{toy.package}.later"
    registry = toy.registry("scale", toy.patch("open", module=later, serves=("work",), is_door=True))
    registry.enable()
    toy.load()
    assert warnings() == []
    importlib.import_module(later)
    assert len(warnings()) == 1


def test_a_door_does_not_warn_while_disabled(toy, warnings):
    registry = toy.registry("open", serves=("work",), is_door=True)
    registry.enable()
    registry.disable()
    toy.load()
    assert warnings() == []


@pytest.mark.parametrize("loaded", [True, False])
def test_what_is_in_force_is_known_before_the_module_is_imported(toy, loaded):
    if loaded:
        toy.load()
    registry = toy.registry("scale", "renamed")
    assert not registry.in_force("scale")
    registry.enable()
    assert registry.in_force("scale")
    assert not registry.in_force("renamed")
    assert not registry.in_force("Worker.run"), "nobody patches it"
    assert (toy.name in sys.modules) is loaded
    registry.disable()
    assert not registry.in_force("scale")


def test_a_target_of_a_base_class_is_patched_where_it_is_inherited_and_restored_by_its_absence(toy):
    module = toy.load()
    of_base = vars(module.Worker)["run"]
    registry = toy.registry("Senior.run")
    registry.enable()
    assert module.Senior(1).run(3) == ("patched", 4)
    assert vars(module.Senior)["run"].__wrapped__ is of_base
    assert vars(module.Worker)["run"] is of_base
    assert module.Worker(1).run(3) == 4
    registry.disable()
    assert "run" not in vars(module.Senior)
    assert module.Senior(1).run(3) == 4
    registry.enable()
    assert module.Senior(1).run(3) == ("patched", 4)
    registry.disable()
    assert "run" not in vars(module.Senior)


def test_a_method_that_is_patched_in_a_class_and_in_its_base(toy):
    module = toy.load()
    of_base = vars(module.Worker)["run"]
    registry = toy.registry("Worker.run", "Senior.run")
    registry.enable()
    assert module.Worker(1).run(3) == ("patched", 4)
    registry.disable()
    assert vars(module.Worker)["run"] is of_base
    assert "run" not in vars(module.Senior)


def test_a_missing_distribution_is_refused_in_one_line():
    registry = Registry("toy-that-nobody-has", (), ">=1", OVERRIDE)
    with pytest.raises(MissingToolError, match=r"^toy-that-nobody-has is not installed; .*pip install.*$"):
        registry.enable(force=True)
    assert not registry.enabled


def test_threads_end_in_a_consistent_state(toy):
    module = toy.load()
    originals = module.scale, vars(module.Worker)["run"]
    registry = toy.registry("scale", "Worker.run")
    worker = module.Worker(1)
    seen = set()

    def call():
        seen.add(module.scale(3))
        seen.add(worker.run(5))

    def enter():
        with registry.patched():
            call()

    actions = [registry.enable, registry.disable, call, enter] * 2
    together = threading.Barrier(len(actions), timeout=20)

    def work(action):
        together.wait()
        for _ in range(100):
            action()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(actions)) as pool:
            list(pool.map(work, actions))
    finally:
        sys.setswitchinterval(interval)
    assert seen <= {6, ("patched", 6)}, "each call is patched once or not at all"
    registry.enable()
    assert module.scale(3) == ("patched", 6)
    registry.disable()
    assert (module.scale, vars(module.Worker)["run"]) == originals


def test_threads_that_enable_at_once_while_another_imports(toy):
    registry = toy.registry()
    together = threading.Barrier(4, timeout=20)

    def work(action):
        together.wait()
        return action()

    registry.enable()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [registry.enable, toy.load, toy.load, toy.load]))
    assert toy.load().scale(3) == ("patched", 6)


def slow(toy, monkeypatch, code):
    """Let the toy module call `code` before its body."""
    monkeypatch.setitem(sys.modules, f"{toy.package}_hook", types.SimpleNamespace(call=code))
    toy.file.write_text(f"import {toy.package}_hook\n\n{toy.package}_hook.call()\n\n\n{SOURCE}")


def test_enable_again_by_the_module_that_is_being_imported(toy, monkeypatch):
    registry = toy.registry()
    registry.enable()
    registry.disable()
    slow(toy, monkeypatch, registry.enable)
    assert toy.load().scale(3) == ("patched", 6)


@pytest.mark.parametrize("hooked", ["not", "once", "twice"])
def test_enable_while_another_thread_is_importing_the_module(toy, monkeypatch, hooked):
    registry = toy.registry("scale", "Worker.run")
    started, enabling = threading.Event(), threading.Event()

    def wait():
        started.set()
        assert enabling.wait(20)
        time.sleep(0.05)

    slow(toy, monkeypatch, wait)
    for _ in range(["not", "once", "twice"].index(hooked)):
        registry.enable()
        registry.disable()
    with ThreadPoolExecutor(2) as pool:
        loaded = pool.submit(toy.load)
        assert started.wait(20)
        enabled = pool.submit(lambda: (enabling.set(), registry.enable()))
        enabled.result(20)
        module = loaded.result(20)
    assert (module.scale(3), module.Worker(1).run(3)) == (("patched", 6), ("patched", 4))
    registry.disable()
    assert module.scale(3) == 6


def test_enable_does_not_lock_out_the_import_that_it_waits_for(toy, monkeypatch):
    registry = toy.registry()
    started, enabling = threading.Event(), threading.Event()
    slow(toy, monkeypatch, lambda: (started.set(), enabling.wait(20), time.sleep(0.05), registry.disable()))
    with ThreadPoolExecutor(2) as pool:
        loaded = pool.submit(toy.load)
        assert started.wait(20)
        enabled = pool.submit(lambda: (enabling.set(), registry.enable()))
        enabled.result(20)
        module = loaded.result(20)
    assert module.scale(3) == 6
    registry.enable()
    assert module.scale(3) == ("patched", 6)


def test_describe_leaves_out_what_is_not_applied(toy):
    plain = toy.registry("scale").describe()
    lacking = toy.patch("Worker.run", needs=(f"{toy.name}:gone",))
    registry = toy.registry("scale", "renamed", lacking, toy.patch("scale", module=f"{toy.package}.gone"))
    assert registry.describe() == plain
    with registry.patched(force=True):
        assert registry.describe() == toy.registry("scale", "Worker.run").describe()


def test_describe_says_nothing_of_the_source_of_an_inherited_target(toy):
    assert "+" not in toy.registry("Senior.run").describe()
    assert toy.registry("scale", "Senior.run").describe() == toy.registry("scale").describe()


def test_describe_needs_the_distribution():
    registry = Registry("toy-that-nobody-has", (Patch("toy_that_nobody_has", "f", MARKED, "why"),), ">=1", OVERRIDE)
    with pytest.raises(MissingToolError, match="toy-that-nobody-has is not installed"):
        registry.describe()


def test_describe_of_a_source_without_a_final_newline_and_with_other_indents(toy):
    source = "x = 1\f\nif x:\n  class Worker:\n    def run(self):\n      return x"
    toy.file.write_text(source)
    applied = git_apply(toy.folder, toy.registry("Worker.run").describe())
    assert applied.returncode == 0, applied.stderr
    assert toy.file.read_text().startswith(source.replace("run", "_upstream_run") + "\n\n    def run(*args")
    ast.parse(toy.file.read_text())


def test_describe_of_a_source_without_a_final_newline_in_the_context(toy):
    toy.file.write_text("def scale(value):\n    return value\n\n\nLAST = scale(1)")
    applied = git_apply(toy.folder, toy.registry().describe())
    assert applied.returncode == 0, applied.stderr
    assert toy.file.read_text().endswith("\n\n\nLAST = scale(1)")


@pytest.mark.parametrize("target", ["scale", "Worker.run", "Worker.rest"])
def test_describe_is_a_diff_that_applies_and_then_behaves_as_patched(toy, target):
    replacements = f"{toy.package}_ours"
    (toy.folder / f"{replacements}.py").write_text(REPLACEMENT)
    diff = toy.registry(target, replacement=f"{replacements}:marked").describe()
    assert diff.startswith(f"# {target}: mark the result\n--- a/{toy.package}/mod.py\n")
    sent = toy.folder / "sent"
    sent.mkdir()
    shutil.copytree(toy.file.parent, sent / toy.package)
    checked = git_apply(sent, diff, "--check")
    assert checked.returncode == 0, checked.stderr
    assert git_apply(sent, diff).returncode == 0
    code = f"from {toy.name} import *; print(scale(3), Worker(1).run(3), Worker(1).rest(hours=8))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=sent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(sent), str(toy.folder)))},
        capture_output=True,
        text=True,
        check=True,
    )
    plain = {"scale": "6", "Worker.run": "4", "Worker.rest": "8"}
    expected = {**plain, target: f"('patched', {plain[target]})"}
    assert shown.stdout.strip() == " ".join(expected.values())


@pytest.mark.parametrize(
    "targets",
    [
        ("Worker.rest", "scale"),
        ("Worker.run", "Worker.rest"),
        ("Worker.rest", "Worker.__init__", "scale", "Worker.run"),
    ],
)
def test_describe_applies_with_several_patches_of_one_file(toy, targets):
    applied = git_apply(toy.folder, toy.registry(*targets).describe())
    assert applied.returncode == 0, applied.stderr
    names = [node.name for node in ast.walk(ast.parse(toy.file.read_text())) if isinstance(node, ast.FunctionDef)]
    for name in (target.rpartition(".")[2] for target in targets):
        assert (names.count(name), names.count(f"_upstream_{name.strip('_')}")) == (1, 1)


def test_describe_is_the_same_whether_enabled_or_not(toy):
    registry = toy.registry("scale", "Worker.run", "Worker.rest")
    disabled = registry.describe()
    registry.enable()
    assert registry.describe() == disabled
    registry.disable()
    assert registry.describe() == disabled


def test_the_real_patches_apply_to_the_installed_ultralytics(tmp_path):
    diff = describe()
    files = {}
    for patch in REGISTRY._applicable():
        path = tmp_path / f"{patch.module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(importlib.util.find_spec(patch.module).origin, path)
        files[patch] = path
    assert len(files) > 10
    checked = git_apply(tmp_path, diff, "--check")
    assert checked.returncode == 0, checked.stderr
    assert git_apply(tmp_path, diff).returncode == 0
    for patch, path in files.items():
        changed = path.read_text()
        names = [node.name for node in ast.walk(ast.parse(changed)) if isinstance(node, ast.FunctionDef)]
        assert names.count(f"_upstream_{patch.attribute.strip('_')}") == 1
        module, _, function = patch.replacement.partition(":")
        assert f"from {module} import {function} as replacement" in changed
        assert f"# {patch.target}: {patch.why}" in diff.splitlines()


@pytest.mark.parametrize("patch", REGISTRY.patches, ids=lambda patch: patch.replacement)
def test_every_real_replacement_is_defined_where_it_is_said_to_be(patch):
    module, _, function = patch.replacement.partition(":")
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    (definition,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert definition.args.args[0].arg == "original"


def test_every_real_replacement_can_be_imported_by_the_name_in_the_diff():
    for patch in REGISTRY.patches:
        module, _, function = patch.replacement.partition(":")
        assert getattr(importlib.import_module(module), function).__module__ == module


def test_importing_the_registry_imports_no_replacement(tmp_path):
    code = """
import sys
from yolo_edgequant.patches import REGISTRY
replacements = {patch.replacement.partition(":")[0] for patch in REGISTRY.patches}
assert REGISTRY.enabled and len(replacements) > 5
print(sorted({*replacements, "torch", "ultralytics"} & set(sys.modules)))
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"
