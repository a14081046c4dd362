import logging

import pytest

from yolo_edgequant.errors import VerificationError
from yolo_edgequant.verification.agreement import Agreement
from yolo_edgequant.verification.self_check import self_check


def no_need():
    raise AssertionError("nothing collapsed")


def test_what_was_seen_is_logged_and_noted(caplog):
    with caplog.at_level(logging.INFO, "ultralytics.yolo_edgequant"):
        verified = self_check(Agreement(16, 40, 0.9, {"boxes 8": 31.0, "scores 8": 12.5}, 20, -0.0213), no_need)
    assert (verified.images, verified.objects, verified.agreement) == (16, 40, 0.9)
    assert verified.snr_db == {"boxes 8": 31.0, "scores 8": 12.5}
    assert (
        "40 objects, agreement 0.900, their scores -0.021 on average, lowest signal to noise 12.5 dB (scores 8)"
        in caplog.text
    )


def test_a_collapse_names_the_tensor():
    with pytest.raises(
        VerificationError,
        match=r"agrees with 10% of its objects .*'model/conv', of whose signal 2% is left.*; verify=False",
    ):
        self_check(Agreement(16, 40, 0.1, {}, 20), lambda: ("model/conv", 0.02))


@pytest.mark.parametrize("agreement", [Agreement(16, 2, 0.0, {}, 2), Agreement(16, 0, None, {})])
def test_too_little_to_judge_by_is_no_collapse(agreement):
    assert self_check(agreement, no_need).images == 16
