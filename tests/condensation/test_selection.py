import itertools

import pytest
import torch

from idm_ray.condensation import condense, start_images
from idm_ray.condensation.selection import herd, spread_centers

METHODS = ("random", "herding", "kcenter", "forgetting")


class Remembered(dict):
    """A place for trained nets."""

    def load(self, key):
        return self.get(key)

    def save(self, key, state):
        self[key] = {name: value.clone() for name, value in state.items()}


@pytest.fixture
def features():
    return torch.randn(17, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_herding_is_the_greedy_loop(features):
    mean, chosen = features.mean(0), []
    for _ in range(6):
        gaps = {}
        for index in set(range(17)) - set(chosen):
            gaps[index] = float((features[[*chosen, index]].mean(0) - mean).norm())
        chosen.append(min(gaps, key=gaps.get))
    assert herd(features, 6).tolist() == chosen
    assert sorted(herd(features, 17).tolist()) == list(range(17))


def test_kcenter_takes_the_farthest_by_brute_force(features):
    chosen = [min(range(17), key=lambda index: float((features[index] - features.mean(0)).norm()))]
    while len(chosen) < 6:
        far = {}
        for index in set(range(17)) - set(chosen):
            far[index] = min(float((features[index] - features[center]).norm()) for center in chosen)
        chosen.append(max(far, key=far.get))
    assert spread_centers(features, 6).tolist() == chosen
    assert sorted(spread_centers(features, 17).tolist()) == list(range(17))


def test_kcenter_never_takes_a_row_twice_among_duplicates():
    assert sorted(spread_centers(torch.ones(4, 3), 4).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("method", METHODS)
def test_the_chosen_are_distinct_training_images_of_their_class(method, small_config, small_data, cpu):
    data = small_data()
    run = condense(small_config(f"condense.method={method}", "select.epochs=2", "condense.ipc=5"), data, cpu)
    list(run)
    training = data.train.images(torch.arange(len(data.train)))
    found = []
    for image, label in zip(run.images, run.labels, strict=True):
        rows = [row for row in range(len(training)) if torch.equal(training[row], image)]
        assert len(rows) == 1
        assert data.train.labels[rows[0]] == label
        found += rows
    assert len(set(found)) == 15


def test_random_is_the_start_of_a_condensation_from_real_images(small_config, small_data, cpu):
    data = small_data()
    run = condense(small_config("condense.method=random"), data, cpu)
    assert run.iterations == 0
    assert torch.equal(run.images, start_images(data.train, 2, 1, "real", 0))


@pytest.mark.parametrize("never_learnt", ["by_count", "first"])
def test_forgetting_counts_what_was_right_and_then_wrong(never_learnt, small_config, small_data, cpu):
    """Counted again from every step's logits; what was never right comes by its count, or first."""
    data = small_data()
    config = small_config(
        "condense.method=forgetting",
        "select.epochs=6",
        "queue.lr=0.3",
        "queue.batch=8",
        "condense.ipc=4",
        f"select.never_learnt={never_learnt}",
    )
    run = condense(config, data, cpu)
    seen = {row: [] for row in range(len(data.train))}
    for _ in run:
        for row, right in enumerate(run.state()["scoring.right"].tolist()):
            seen[row].append(right)
    events = {row: sum(a and not b for a, b in itertools.pairwise(r)) for row, r in seen.items()}
    assert run.forgotten.tolist() == [events[row] for row in range(len(data.train))]
    assert max(events.values()) > 0
    score = {row: events[row] + 100 * (never_learnt == "first" and not any(seen[row])) for row in events}
    training = data.train.images(torch.arange(len(data.train)))
    for label in range(3):
        chosen = [
            next(row for row in range(len(training)) if torch.equal(training[row], image))
            for image in run.images[4 * label : 4 * label + 4]
        ]
        rows = range(data.train.offsets[label], data.train.offsets[label + 1])
        left = [score[row] for row in rows if row not in chosen]
        assert min(score[row] for row in chosen) >= max(left)


def test_the_net_is_trained_once_for_all_methods(small_config, small_data, cpu):
    keep, data = Remembered(), small_data()
    trained = {}
    for method in METHODS[1:]:
        config = small_config(f"condense.method={method}", "select.epochs=3")
        alone = condense(config, data, cpu)
        list(alone)
        trained[method] = len(list(run := condense(config, data, cpu, keep=keep)))
        assert torch.equal(alone.images, run.images)
    assert trained == {"herding": 3, "kcenter": 0, "forgetting": 0}
    other = condense(
        small_config("condense.method=herding", "select.epochs=3", "seed=9"), data, cpu, keep=keep
    )
    assert len(list(other)) == 3


def test_classes_that_can_be_told_apart_are_learnt(small_config, small_data, cpu):
    config = small_config("condense.method=herding", "select.epochs=30", "queue.lr=0.05", "net.width=16")
    records = list(condense(config, small_data(), cpu))
    assert float(records[-1].cross_entropy) < float(records[0].cross_entropy)
