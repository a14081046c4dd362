"""Hand-made and drawn statistics of validations."""

import numpy as np

from yolo_edgequant.upstream.image_statistics import joined


def detections(images, labels):
    """Statistics of images.

    Args:
        images: of each its detections: class, score, at how many of the ten overlaps it is right, and, if it matters,
            where its box begins.
        labels: of each the classes of its objects.
    """
    values = []
    for found, classes in zip(images, labels, strict=True):
        left = np.array([place[0] if place else 20.0 * i for i, (_, _, _, *place) in enumerate(found)])
        values.append(
            {
                "hits": np.array([np.arange(10) < right for _, _, right, *_ in found]).reshape(-1, 10),
                "scores": np.array([score for _, score, *_ in found]),
                "classes": np.array([number for number, *_ in found]),
                "boxes": np.stack((left, 0 * left, left + 10, 0 * left + 10), 1),
                "label_classes": np.array(classes),
            }
        )
    return joined([f"{number}.jpg" for number in range(len(images))], values)


def random_detections(count, seed, noise=0.0):
    """Statistics of some images with two to six objects of three classes, of which a detector misses some.

    Args:
        count: of images.
        seed: of the images.
        noise: standard deviation of what the scores change by.
    """
    rng, changes = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    images, labels = [], []
    for _ in range(count):
        classes = rng.integers(0, 3, rng.integers(2, 7))
        right = [(c, rng.beta(4, 3), rng.integers(1, 11)) for c in classes if rng.random() < 0.8]
        wrong = [(rng.integers(0, 3), rng.beta(2, 5), 0) for _ in range(rng.integers(0, 6))]
        changed = [(c, np.clip(s + changes.normal(0, noise), 0.001, 1), n) for c, s, n in (*right, *wrong)]
        images.append(changed)
        labels.append(classes)
    return detections(images, labels)
