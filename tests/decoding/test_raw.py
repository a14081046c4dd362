import torch

from yolo_edgequant.contract import TopK
from yolo_edgequant.decoding.raw import top_k


def cells():
    """Four cells of two classes, with the number of the cell as their box and extra value."""
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.7], [0.3, 0.2], [0.6, 0.6]])
    number = torch.arange(4.0)[:, None]
    return torch.cat((number.expand(4, 4), scores, number), 1).T[None]


def test_the_best_pairs_of_cell_and_class_come_first():
    best = top_k(cells(), 2, TopK(3, False))[0]
    assert [(row[0].item(), round(row[4].item(), 1), row[5].item(), row[6].item()) for row in best] == [
        (0, 0.9, 1, 0),
        (1, 0.8, 0, 1),
        (1, 0.7, 1, 1),
    ]


def test_agnostic_takes_one_class_of_each_cell_and_of_equal_scores_the_lower():
    best = top_k(cells(), 2, TopK(3, True))[0]
    assert [(row[0].item(), row[5].item()) for row in best] == [(0, 1), (1, 0), (3, 0)]


def test_there_are_no_more_rows_than_cells():
    assert top_k(cells(), 2, TopK(300, False)).shape == (1, 4, 7)
