import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from idm_ray.errors import UserError
from idm_ray.evaluation import alignment, full_protocol, measure_alignment
from idm_ray.evaluation.alignment import consistency_ratios, neighbour_labels
from idm_ray.evaluation.protocol import whole_nets


def by_brute_force(queries, labels, rows, row_labels, ks):
    near = NearestNeighbors(n_neighbors=max(ks), algorithm="brute").fit(rows).kneighbors(queries)[1]
    same = row_labels[near] == labels[:, None]
    return [same[:, :k].mean() for k in ks]


@pytest.mark.parametrize("queries", [1, 7, 30])
def test_the_ratio_is_that_of_brute_force_neighbours(queries, monkeypatch):
    monkeypatch.setattr(alignment, "QUERIES", 7)
    generator = torch.Generator().manual_seed(queries)
    # Far from the origin, where squares cancel.
    wanted, rows = (torch.randn(n, 12, generator=generator) + 300 for n in (queries, 500))
    labels, row_labels = (torch.randint(4, (n,), generator=generator) for n in (queries, 500))
    blocks = zip(rows.split(64), row_labels.split(64), strict=True)
    ks = [1, 5, 100]
    found = consistency_ratios(neighbour_labels(wanted, blocks, 100), labels, ks)
    arrays = (tensor.double().numpy() for tensor in (wanted, labels, rows, row_labels))
    assert found == pytest.approx(by_brute_force(*arrays, ks), abs=1e-12)


def test_a_set_is_measured_in_features_of_nets_that_know_the_classes(small_config, small_data, cpu):
    config = small_config("evaluate.whole_epochs=2", "condense.partition=2")
    data = small_data()
    protocol = full_protocol(config, data, cpu)
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(3).repeat_interleave(2)
    found = measure_alignment(images, labels, 1, (1, 9), protocol)
    expected = []
    for shell in whole_nets(protocol):
        with torch.no_grad():
            arrays = [shell(batch)[0].numpy() for batch in (images, data.train.images(torch.arange(60)))]
        expected.append(
            by_brute_force(arrays[0], labels.numpy(), arrays[1], data.train.labels.numpy(), (1, 9))
        )
    assert [each.k for each in found] == [1, 9]
    assert pytest.approx(np.array(expected)) == np.array([each.runs for each in found]).T
    assert found[0].mean == pytest.approx(np.mean([row[0] for row in expected]))


def test_real_images_of_the_training_part_are_their_own_nearest_neighbours(small_config, small_data, cpu):
    data = small_data()
    picks = data.train.sample_per_class(2, torch.Generator().manual_seed(0))
    protocol = full_protocol(small_config("evaluate.whole_epochs=1"), data, cpu)
    (found,) = measure_alignment(data.train.images(picks), data.train.labels[picks], 1, (1,), protocol)
    assert found.runs == (1.0, 1.0)


@pytest.mark.parametrize("ks", [(), (0,), (1, 61)])
def test_numbers_of_neighbours_that_there_are_not_are_refused(small_config, small_data, cpu, ks):
    protocol = full_protocol(small_config(), small_data(), cpu)
    with pytest.raises(UserError, match="must be 1 to 60, the training images"):
        measure_alignment(torch.zeros(1, 3, 8, 8), torch.zeros(1), 1, ks, protocol)
