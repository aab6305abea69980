import numpy as np
import pytest

from idm_ray.data.closing import moves


@pytest.mark.parametrize("seed", range(30))
def test_moves_in_their_order_bring_the_rows_of_each_class_together(seed):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 5, 60))
    gaps = np.flatnonzero(rng.random(60) < rng.random() * 0.9)
    rows: list[tuple[int, int] | None] = [(int(label), row) for row, label in enumerate(labels)]
    for gap in gaps:
        rows[gap] = None
    left = [row for row in rows if row is not None]
    for source, target in zip(*moves(labels, gaps), strict=True):
        rows[target] = rows[source]
    assert sorted(rows[: len(left)]) == left
    assert [label for label, _ in rows[: len(left)]] == [label for label, _ in left]


def test_a_gap_in_the_first_class_moves_a_row_of_each_class_and_not_all():
    labels = np.repeat(np.arange(10), 100)
    sources, targets = moves(labels, np.array([3]))
    assert sources.tolist() == [99 + 100 * label for label in range(10)]
    assert targets.tolist() == [3, *(99 + 100 * label for label in range(9))]
