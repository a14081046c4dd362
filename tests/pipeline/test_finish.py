import pytest

from tests.pipeline.fakes import CONTRACT, FakeBuild, request
from yolo_edgequant.contract import InFloat, Verified
from yolo_edgequant.errors import DataError, VerificationError
from yolo_edgequant.pipeline import mixed_precision
from yolo_edgequant.pipeline.finish import Search, finish
from yolo_edgequant.verification.agreement import Agreement


def no_search(file):
    raise AssertionError("nothing is searched for")


@pytest.fixture
def search(tmp_path):
    return Search(no_search, tmp_path / "sensitivity.json")


def test_a_model_is_quantized_checked_and_described(search):
    model, contract = finish(FakeBuild(), request(head="raw"), search)
    assert model == "corrected model "
    assert contract.verified == Verified(4, 10, 0.9, {"detections": 20.0})
    assert contract.in_float is None
    assert FakeBuild().contract == CONTRACT, "a stage returns values and changes none"


def test_a_collapse_is_refused_with_the_worst_tensor_and_written_on_request(search):
    collapsed = FakeBuild(Agreement(4, 10, 0.1, {}, 5))
    with pytest.raises(VerificationError, match=r"tensor 'worst of corrected model ', of whose signal 3% is left"):
        finish(collapsed, request(head="raw"), search)
    _, contract = finish(collapsed, request(head="raw", verify=False), search)
    assert contract.verified is None


def test_without_images_held_back_nothing_is_compared(search):
    build = FakeBuild(holdout=[])
    assert finish(build, request(head="raw"), search)[1].verified is None
    with pytest.raises(DataError, match="needs 8 calibration images"):
        finish(build, request(head="raw", precision="auto"), search)


class Interpreter:
    """Takes no time."""

    class input:
        @staticmethod
        def stored(image):
            return image

    def bound(self, image):
        return lambda: None


@pytest.fixture
def no_interpreter(monkeypatch):
    monkeypatch.setattr(mixed_precision, "open_file", lambda file, threads: Interpreter())


@pytest.mark.usefixtures("no_interpreter")
def test_the_costliest_layers_stay_in_float_until_the_retention_is_reached(tmp_path):
    def evaluate(file):
        return {
            "float": 0.8,
            "corrected model ": 0.7,
            "corrected model b": 0.77,
            "corrected model bc": 0.79,
            "corrected model bcda": 0.8,
        }[file.read_text()]

    wanted = request(head="raw", precision="auto", min_retention=0.98)
    model, contract = finish(FakeBuild(), wanted, Search(evaluate, tmp_path / "sensitivity.json"))
    assert model == "corrected model bc"
    assert contract.in_float == InFloat(2, pytest.approx(0.79 / 0.8))
    assert contract.verified.agreement == 0.9
    assert (tmp_path / "sensitivity.json").is_file()
    assert (tmp_path / "sensitivity.png").stat().st_size > 10_000


@pytest.mark.usefixtures("no_interpreter")
def test_images_without_labels_are_said(tmp_path):
    with pytest.raises(DataError, match="which have no labels"):
        finish(FakeBuild(), request(head="raw", precision="auto"), Search(lambda file: 0.0, tmp_path / "s.json"))
    assert not list(tmp_path.iterdir())
