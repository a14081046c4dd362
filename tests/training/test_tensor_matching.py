import numpy as np

from yolo_edgequant.training.tensor_matching import fingerprint, match, probe_image


def test_the_probe_is_an_image_and_always_the_same():
    image = probe_image((2, 3, 96, 160))
    assert image.shape == (2, 3, 96, 160)
    assert image.dtype == np.float32
    assert 0 <= image.min() < 0.2
    assert 0.8 < image.max() <= 1
    assert (image[0] == image[1]).all()
    assert (probe_image((2, 3, 96, 160), channels_last=True) == image.transpose(0, 2, 3, 1)).all()


def test_a_tensor_is_found_in_another_layout_and_not_where_it_is_not():
    generator = np.random.default_rng(1)
    kinds = [generator.normal(size=(1, 8, 5, 7)) for _ in range(20)]
    known = {f"tensor {i}": fingerprint(kind) for i, kind in enumerate(kinds)}
    noise = 1 + 1e-5 * generator.normal(size=(1, 5, 7, 8))  # another runtime
    wanted = {i: fingerprint(kind.transpose(0, 2, 3, 1) * noise) for i, kind in enumerate(kinds)}
    wanted[20] = fingerprint(generator.normal(size=(1, 8, 5, 7)))
    wanted[21] = fingerprint(kinds[0][:, :4])
    assert match(wanted, known) == {i: f"tensor {i}" for i in range(20)}


def test_nothing_matches_nothing():
    assert match({0: fingerprint(np.ones(3))}, {}) == {}
