import ast
import json
import re
import zipfile
import zlib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from yolo_edgequant import contract as contracts
from yolo_edgequant.contract import Contract, InFloat, Output, Raw, TopK, Trained, Verified
from yolo_edgequant.errors import ContractError

PAGE = Path(__file__).parents[1] / "docs" / "metadata.md"
STRIDES = (8, 16, 32)


def levels(*names):
    return tuple(Output(name, stride) for name in names for stride in STRIDES)


PLAIN = Contract(
    task="detect",
    names={0: "circle", 1: "square"},
    stride=32,
    end2end=False,
    nms=False,
    kpt_shape=None,
    head="float",
    granularity="channel",
    ranges="activation",
    corrections="all",
    io="int8",
    channels_last=True,
    outputs=(Output("detections"),),
    normalised=True,
)
RAW = replace(
    PLAIN, head="raw", outputs=levels("boxes", "scores"), normalised=False, strides=STRIDES, raw=Raw(True, 16)
)
POSE = replace(
    RAW,
    task="pose",
    kpt_shape=(5, 3),
    outputs=levels("boxes", "scores", "kpts", "visibility"),
    raw=Raw(False, 1, (2.0, -0.5)),
)
KINDS = {
    "decoded": PLAIN,
    "decoded in pixels": replace(PLAIN, normalised=False, channels_last=False, io="float"),
    "NMS inside": replace(PLAIN, nms=True),
    "NMS-free": replace(PLAIN, end2end=True),
    "segments": replace(PLAIN, task="segment", outputs=(Output("detections"), Output("prototypes"))),
    "separate": replace(
        PLAIN, task="segment", outputs=(Output("mask_coefficient"), Output("prototypes"), Output("detections"))
    ),
    "pose": replace(PLAIN, task="pose", kpt_shape=(5, 3)),
    "raw": RAW,
    "raw pose": POSE,
    "raw pose without visibility": replace(
        POSE, kpt_shape=(5, 2), outputs=levels("boxes", "scores", "kpts"), raw=Raw(False, 16, (1.0, 0.0))
    ),
    "raw segments": replace(
        RAW, task="segment", outputs=(*levels("boxes", "scores", "mask_coefficient"), Output("prototypes"))
    ),
    "raw, merged": replace(RAW, outputs=(Output("scores"), Output("boxes")), raw=Raw(True, 16, arrangement="merged")),
    "raw segments, merged": replace(
        RAW,
        task="segment",
        outputs=tuple(Output(name) for name in ("boxes", "scores", "mask_coefficient", "prototypes")),
        raw=Raw(False, 1, arrangement="merged"),
    ),
    "raw maps": replace(RAW, raw=Raw(True, 16, arrangement="grid")),
    "raw pose, maps": replace(POSE, raw=Raw(False, 1, (2.0, -0.5), "grid")),
    "raw, rotated": replace(RAW, task="obb", outputs=levels("angle", "boxes", "scores")),
    "top_k": replace(PLAIN, head="int8", end2end=True, top_k=TopK(300, False)),
    "raw top_k": replace(RAW, end2end=True, top_k=TopK(20, True)),
    "unturned": replace(
        PLAIN, head="int8", task="obb", outputs=(Output("detections"), Output("angle")), unturned=True, strides=STRIDES
    ),
    "for a device": replace(PLAIN, target="nxp-imx8mp"),
    "unsigned": replace(PLAIN, io="uint8"),
    "verified": replace(PLAIN, verified=Verified(16, 40, 0.97, {"detections": 31.5})),
    "verified without objects": replace(RAW, verified=Verified(2, 0, None, {"boxes 8": -3.0, "scores 16": 12.25})),
    "in float": replace(PLAIN, in_float=InFloat(3, 0.991)),
    "trained": replace(PLAIN, ranges="trained", trained=Trained("tflite", "tensor"), activation="relu6"),
    "classify": replace(PLAIN, task="classify", outputs=(), normalised=False, verified=Verified(2, None, None, {})),
    "depth": replace(PLAIN, task="depth", outputs=(), normalised=False),
}


def upstream(contract):
    facts = {
        "task": contract.task,
        "names": {str(index): name for index, name in contract.names.items()},
        "stride": contract.stride,
        "end2end": contract.end2end,
        "args": {"nms": contract.nms},
        "imgsz": [160, 160],
    }
    return facts if contract.kpt_shape is None else facts | {"kpt_shape": list(contract.kpt_shape)}


def metadata(contract, checksum=1):
    """What is read back from the file."""
    return json.loads(json.dumps(replace(contract, checksum=checksum).to_metadata(upstream(contract))))


@pytest.mark.parametrize("contract", KINDS.values(), ids=KINDS)
def test_what_is_written_is_read(contract):
    assert Contract.of(metadata(contract, 7)) == replace(contract, checksum=7)


@pytest.mark.parametrize("contract", KINDS.values(), ids=KINDS)
def test_ultralytics_own_keys_stay(contract):
    facts = upstream(contract)
    assert contract.to_metadata(facts).items() >= (facts | {"stride": contract.to_metadata(facts)["stride"]}).items()
    assert upstream(contract) == facts


def test_the_kinds_have_everything_that_a_contract_can_have():
    defaults = {field.name: getattr(PLAIN, field.name) for field in fields(Contract)}
    unused = [n for n, v in defaults.items() if all(getattr(contract, n) == v for contract in KINDS.values())]
    assert unused == ["names", "stride", "granularity", "corrections", "checksum", "version"]


def test_raw_files_of_before_there_was_a_choice_have_levels():
    old = metadata(RAW)
    assert old["edgequant"]["raw"].pop("arrangement") == "levels"
    assert Contract.of(old) == replace(RAW, checksum=1)


@pytest.mark.parametrize("kind", ["raw, merged", "raw segments, merged"])
def test_merged_outputs_are_of_no_level(kind):
    raw = metadata(KINDS[kind])["edgequant"]["raw"]
    assert not any("stride" in output for output in raw["outputs"])
    assert raw["strides"] == list(STRIDES), "of the cells that are in them, in order"
    assert [output.title for output in KINDS[kind].outputs] == [output["name"] for output in raw["outputs"]]


def test_outputs_of_levels_are_called_by_their_strides():
    assert [output.title for output in KINDS["raw maps"].outputs] == [
        *("boxes_8", "boxes_16", "boxes_32", "scores_8", "scores_16", "scores_32")
    ]


READ_BY_ULTRALYTICS = {
    *("decoded", "decoded in pixels", "NMS inside", "NMS-free", "segments", "pose", "classify", "depth"),
    *("for a device", "verified", "in float", "trained"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_ultralytics_cannot_read_stop_it(kind):
    """Its readers turn the stride into a number, whatever the format."""
    contract = KINDS[kind]
    assert contract.is_upstream is (kind in READ_BY_ULTRALYTICS)
    stride = metadata(contract)["stride"]
    if contract.is_upstream:
        assert int(stride) == 32
        return
    with pytest.raises(ValueError, match="'import yolo_edgequant'"):
        int(stride)
    assert Contract.of(metadata(contract)).stride == 32


def test_boxes_that_are_not_turned_yet_are_not_for_ultralytics_wherever_the_angle_is():
    assert not replace(KINDS["unturned"], outputs=(Output("detections"),)).is_upstream


def test_prototypes_may_come_first():
    first = replace(KINDS["segments"], outputs=(Output("prototypes"), Output("detections")))
    assert first.is_upstream


@pytest.mark.parametrize(
    ("kind", "final"), [("decoded", False), ("NMS inside", True), ("NMS-free", True), ("raw", False), ("top_k", True)]
)
def test_final_files_need_no_nms(kind, final):
    assert KINDS[kind].is_final is final
    assert Contract.of(metadata(KINDS[kind])).is_final is final


def keys(values, prefix=""):
    """Dotted names of all keys of a mapping, those of lists' entries after []; what `snr_db` holds is no key."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and key != "snr_db":
            yield from keys(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                yield from keys(entry, f"{name}[].")
        else:
            yield name


def test_the_page_names_every_key_and_no_other():
    written = {key for contract in KINDS.values() for key in keys(metadata(contract)["edgequant"])}
    page = PAGE.read_text().split("## Keys of `edgequant`")[1]
    tables = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(set(tables)) == len(tables)
    assert {name for name in tables if name != "raw"} == written


def listed(name):
    """The values in backquotes that the page gives for a key."""
    (cell,) = re.findall(rf"^\| `{re.escape(name)}` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", cell))


def test_the_page_names_the_values():
    from yolo_edgequant.options import IO, Corrections, Granularity, Head, Outputs, RangeEstimator

    assert listed("head") == set(Head)
    assert listed("io") == set(IO)
    assert listed("granularity") == listed("trained.granularity") == set(Granularity)
    assert listed("corrections") == set(Corrections)
    assert listed("ranges") == {*RangeEstimator, "trained", "none"}
    assert listed("outputs[].name") | listed("raw.outputs[].name") == set(contracts._OUTPUTS)
    assert listed("schema") == {str(contracts.SCHEMA)}
    for key, values in {"layout": {"NHWC", "NCHW"}, "boxes": {"normalised", "pixels"}, "turned": {"false"}}.items():
        assert listed(key) == values
    assert listed("raw.arrangement") == {*contracts._ARRANGEMENTS} == {Outputs.LEVELS, Outputs.MERGED, Outputs.GRID}
    orders = {metadata(contract)["edgequant"]["raw"]["order"] for contract in (RAW, POSE)}
    assert listed("raw.order") == orders


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3 the model")
    contracts.append(path, RAW, upstream(RAW))
    return path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model_openvino_model"
    place.mkdir()
    (place / "model.xml").write_text("<net/>")
    (place / "model.bin").write_bytes(b"weights")
    return place


def test_a_file_has_its_contract_behind_the_model(file):
    assert file.read_bytes().startswith(b"\x1c\0\0\0TFL3 the model")
    assert contracts.read(file) == replace(RAW, checksum=zlib.crc32(b"\x1c\0\0\0TFL3 the model"))


def test_a_folder_has_it_beside_the_model(folder):
    written = contracts.beside(folder, RAW, upstream(RAW))
    assert json.loads((folder / "metadata.json").read_text()) == json.loads(json.dumps(written))
    assert contracts.read(folder) == replace(RAW, checksum=zlib.crc32(b"<net/>weights"))


def test_the_page_says_how_to_check_the_checksum(file):
    (program,) = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    space = {}
    exec(compile(ast.parse(program), "metadata.md", "exec"), space)
    space["check"](file)
    content = bytearray(file.read_bytes())
    content[9] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        space["check"](file)
    with pytest.raises(ContractError, match="its bytes are not those that were written"):
        contracts.read(file)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_folder_with_other_bytes_is_refused(folder, name):
    contracts.beside(folder, RAW, upstream(RAW))
    with (folder / name).open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(ContractError, match="its bytes are not those that were written"):
        contracts.read(folder)


def test_a_folder_with_two_models_is_refused(folder):
    (folder / "second.xml").write_text("<net/>")
    with pytest.raises(ContractError, match=r"2 \.xml files"):
        contracts.beside(folder, RAW, upstream(RAW))


def changed(contract, path, value):
    """The metadata with another value, or without it for ..., at a dotted path."""
    values = metadata(contract)
    *above, last = path.split(".")
    place = values
    for key in above:
        place = place[int(key) if key.isdecimal() else key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("contract", "path", "value", "said"),
    [
        (PLAIN, "edgequant", ..., "export it again with 'import yolo_edgequant'"),
        (PLAIN, "edgequant", 3, "'edgequant' is 3, not a mapping"),
        (PLAIN, "edgequant.schema", 2, "metadata of schema 2, this version reads 1"),
        (PLAIN, "edgequant.schema", True, r"edgequant\.schema' is True, not a whole number"),
        (PLAIN, "task", "track", "'track', not one of detect"),
        (PLAIN, "end2end", None, "'metadata.end2end' is None, not true or false"),
        (PLAIN, "args", [], "'args' is list, not a mapping"),
        (PLAIN, "names", {"0": "a", "2": "b"}, "not a mapping from 0, 1, 2"),
        (PLAIN, "names", {"0": 3}, "not a mapping from 0, 1, 2"),
        (PLAIN, "names", {}, "not a mapping from 0, 1, 2"),
        (PLAIN, "edgequant.stride", 10**9, "from 1 to 1048576"),
        (PLAIN, "edgequant.head", "raw", r"edgequant\.head' is 'raw', and key 'edgequant\.raw' says otherwise"),
        (PLAIN, "edgequant.version", "x" * 10_000, r"is 'x{56}\.\.\., not a short text"),
        (PLAIN, "edgequant.outputs", [], "the outputs none lack detections"),
        (PLAIN, "edgequant.outputs", [{"name": "detections"}] * 2, "or repeat"),
        (PLAIN, "edgequant.boxes", "feet", "'feet', not one of normalised, pixels"),
        (PLAIN, "edgequant.checksum", -1, "from 0 to"),
        (PLAIN, "edgequant.turned", False, "'edgequant.strides' is missing"),
        (KINDS["unturned"], "task", "detect", "is not for a detect model"),
        (KINDS["segments"], "edgequant.outputs", [{"name": "detections"}], "no output 'prototypes'"),
        (RAW, "edgequant.raw.strides", [8, 16], "not one for each of the strides"),
        (RAW, "edgequant.raw.reg_max", 0, "from 1 to 1024"),
        (RAW, "edgequant.raw.outputs.0.name", 10**400, r"is 10{56}\.\.\., not one of"),
        (RAW, "edgequant.raw.arrangement", "tiles", r"raw\.arrangement' is 'tiles', not one of levels, merged, grid"),
        (RAW, "edgequant.raw.arrangement", None, r"raw\.arrangement' is None, not one of"),
        (RAW, "edgequant.raw.arrangement", "merged", "output 'boxes_8' has a stride where it needs none"),
        (KINDS["raw, merged"], "edgequant.raw.strides", [8, 8, 32], r"names a level twice: \[8, 8, 32\]"),
        (KINDS["raw, merged"], "edgequant.raw.arrangement", "levels", "output 'scores' .* or lacks it"),
        (KINDS["raw, merged"], "edgequant.raw.arrangement", "grid", "output 'scores' .* or lacks it"),
        (KINDS["raw, merged"], "edgequant.raw.arrangement", ..., "output 'scores' .* or lacks it"),
        (
            KINDS["raw, merged"],
            "edgequant.raw.outputs.0.stride",
            8,
            "output 'scores_8' has a stride where it needs none",
        ),
        (KINDS["raw maps"], "edgequant.raw.strides", [8, 16], "not one for each of the strides"),
        (KINDS["raw, merged"], "edgequant.raw.outputs.1.name", "kpts", "boxes"),
        (RAW, "task", "obb", "a raw file of a obb model has no output 'angle'"),
        (POSE, "edgequant.raw.keypoint", [float("nan"), 1], "not a gain and an offset"),
        (POSE, "edgequant.raw.keypoint", ..., r"raw\.keypoint' is missing"),
        (POSE, "kpt_shape", [5, 2], "does not fit the outputs"),
        (POSE, "kpt_shape", ..., r"metadata\.kpt_shape' is missing"),
        (
            KINDS["verified"],
            "edgequant.verified.agreement",
            1e400,
            "'edgequant.verified.agreement' is inf, not a finite",
        ),
        (KINDS["verified"], "edgequant.verified.snr_db", {"a\nb": None}, "not a finite number"),
        (KINDS["top_k"], "edgequant.top_k.agnostic", 1, "not true or false"),
        (KINDS["top_k"], "end2end", False, "is for NMS-free files"),
        (RAW, "args.nms", True, "a raw file holds no final detections"),
        (RAW, "end2end", True, "a raw file holds no final detections"),
        (PLAIN, "args.nms", "inf", r"args\.nms' is 'inf', not true or false"),
        (PLAIN, "edgequant.outputs.0.stride", 8, "output 'detections_8' has a stride where it needs none"),
        (KINDS["raw segments"], "edgequant.raw.outputs.9.stride", 8, "output 'prototypes_8' has a stride"),
        (RAW, "edgequant.raw.outputs.0.stride", ..., "output 'boxes' .* or lacks it"),
        (replace(KINDS["segments"], nms=True), "edgequant.outputs.1.name", "angle", "no output 'prototypes'"),
    ],
)
def test_damage_is_one_line(contract, path, value, said):
    with pytest.raises(ContractError, match=said) as raised:
        Contract.of(changed(contract, path, value))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("key", [float("inf"), float("nan"), None, (1, 2), "one"])
def test_names_by_something_else_than_numbers(key):
    """YAML has keys that are no text."""
    with pytest.raises(ContractError, match="not a mapping from 0, 1, 2"):
        Contract.of(metadata(PLAIN) | {"names": {key: "a"}})


def rewritten(file, text, **how):
    """The file with another ``metadata.json``."""
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        start = archive.infolist()[0].header_offset
    file.write_bytes(content[:start])
    with zipfile.ZipFile(file, "a", **how) as archive:
        archive.writestr("metadata.json", text)
    return file


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '"text"', "[" * 100_000, '{"a":' * 100_000, b"\xff\xfe\xfa", "1" * 10_000, "NaN"]
)
def test_a_metadata_json_that_is_none(file, text):
    with pytest.raises(ContractError) as raised:
        contracts.read(rewritten(file, text))
    assert "\n" not in str(raised.value)


def test_metadata_of_an_absurd_size_is_not_read(file, folder):
    with pytest.raises(ContractError, match="more than 16 MB"):
        contracts.read(rewritten(file, b" " * (1 << 24) + b"{}", compression=zipfile.ZIP_DEFLATED))
    (folder / "metadata.json").write_bytes(b" " * (1 << 24) + b"{}")
    with pytest.raises(ContractError, match="more than 16 MB"):
        contracts.read(folder)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_with_errors_of_their_own_are_not_tried(file, compression):
    with pytest.raises(ContractError, match=f"compressed by method {compression}"):
        contracts.read(rewritten(file, "{}", compression=compression))


def test_a_damaged_archive(file):
    content = bytearray(file.read_bytes())
    start = content.index(b"metadata.json") + len("metadata.json")
    content[start : start + 40] = bytes(range(200, 240))
    file.write_bytes(content)
    with pytest.raises(ContractError, match="its metadata is damaged"):
        contracts.read(file)


def test_an_encrypted_archive(file):
    content = file.read_bytes()
    for signature, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = content.index(signature) + place
        content = content[:at] + b"\1" + content[at + 1 :]
    file.write_bytes(content)
    with pytest.raises(ContractError, match="its metadata is damaged"):
        contracts.read(file)


def test_a_file_without_an_archive_and_one_of_someone_else(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"TFL3")
    with pytest.raises(ContractError, match="not from 'import yolo_edgequant', or cut off"):
        contracts.read(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "a")
    with pytest.raises(ContractError, match=r"no metadata\.json"):
        contracts.read(path)
    with pytest.raises(ContractError, match=r"no metadata\.json"):
        contracts.read(tmp_path)


def test_this_module_needs_the_standard_library_alone():
    import subprocess
    import sys

    program = "import sys; sys.modules['numpy'] = None; import yolo_edgequant.contract; print('read')"
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in ("torch", "ultralytics", "wrapt", "typer", "rich"))
    program = program.replace("import sys; ", f"import sys; {blocked}")
    child = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert child.stdout == "read\n", child.stderr[-500:]
