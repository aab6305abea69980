import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from idm_ray.data.sampling import ClassImages, distinct, split_images

OFFSETS = (0, 5, 7, 17)
CPU = torch.device("cpu")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def pixels(count: int = 17) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 4, 2), dtype=np.uint8))


def make(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)) -> ClassImages:
    return ClassImages(pixels(), torch.arange(17), OFFSETS, mean, std)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_labels_and_counts_follow_the_offsets():
    images = make()
    assert images.labels.tolist() == [0] * 5 + [1] * 2 + [2] * 10
    assert (images.counts, images.num_classes, len(images)) == ((5, 2, 10), 3, 17)


def test_images_are_normalised_per_channel():
    images = make()
    positions = torch.tensor([16, 0, 0, 6])
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    expected = (pixels().numpy()[positions].astype(np.float64) / 255 - mean) / std
    result = images.images(positions)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_a_position_counts_the_images_of_the_split_only():
    rows = torch.tensor([1, 4, 6, 9, 16])
    images = split_images(pixels(), rows, OFFSETS, (0.0,) * 3, (1.0,) * 3, CPU)
    assert images.offsets == (0, 2, 3, 5)
    np.testing.assert_allclose(images.images(torch.tensor([3]))[0] * 255, pixels()[9].float(), atol=1e-4)


@pytest.mark.parametrize("per_class", [1, 2, 4, 10, 100])
def test_a_class_gives_what_is_asked_or_all_it_has_and_no_image_twice(per_class):
    images = make()
    positions = images.sample_per_class(per_class, generator())
    labels = images.labels[positions]
    assert labels.bincount().tolist() == [min(per_class, count) for count in images.counts]
    assert torch.equal(labels, labels.sort().values)
    assert len(positions.unique()) == len(positions)


def test_sampling_per_class_is_uniform_in_pairs():
    images, draws, generate = make(), 6000, generator()
    seen = torch.zeros(17, 17)
    for _ in range(draws):
        chosen = images.sample_per_class(2, generate)[-2:]
        seen[chosen[0], chosen[1]] += 1
    pairs = seen[7:, 7:]
    expected = draws / 90
    chi_square = ((pairs - expected) ** 2 / expected)[~torch.eye(10, dtype=bool)].sum()
    # 89 degrees of freedom: beyond 150 in 1 of 10,000.
    assert chi_square < 150
    assert pairs.diagonal().sum() == 0


def test_a_batch_has_no_image_twice_and_is_uniform_over_all_images():
    images, draws, generate = make(), 4000, generator()
    counts = torch.zeros(17)
    for _ in range(draws):
        batch = images.sample(5, generate)
        assert len(batch.unique()) == 5
        counts += batch.bincount(minlength=17)
    expected = 5 * draws / 17
    # 16 degrees of freedom, less spread than with repeats: beyond 45 in fewer than 1 of 7,000.
    assert ((counts - expected) ** 2 / expected).sum() < 45


def test_a_batch_larger_than_the_split_has_every_image_as_often_or_once_more():
    counts = make().sample(40, generator()).bincount(minlength=17)
    assert sorted(counts.tolist()) == [2] * 11 + [3] * 6


@pytest.mark.parametrize("draw", ["sample_per_class", "sample"])
def test_a_generator_repeats_its_draws(draw):
    images = make()
    first, again, other = (getattr(images, draw)(5, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_split_without_images_gives_none():
    images = split_images(pixels(), torch.arange(0), OFFSETS, (0.0,) * 3, (1.0,) * 3, CPU)
    assert len(images) == 0
    assert images.sample_per_class(4, generator()).shape == (0,)
    assert images.images(torch.arange(0)).shape == (0, 3, 4, 2)


def test_splits_of_equal_size_are_told_apart():
    rows = [torch.tensor(each) for each in ([1, 4, 6], [0, 5, 6], [1, 4, 6])]
    one, other, again = (split_images(pixels(), each, OFFSETS, (0.0,) * 3, (1.0,) * 3, CPU) for each in rows)
    assert one.identity == again.identity
    part, same, turned = one.of_classes([0, 1]), again.of_classes([0, 1]), one.of_classes([1, 0])
    assert part.identity == same.identity
    assert len({one.identity, other.identity, part.identity, turned.identity}) == 4


@needs_cuda
def test_on_a_gpu_only_the_rows_of_the_split_are_split_images():
    rows, device = torch.tensor([1, 4, 6, 9, 16]), torch.device("cuda")
    images = split_images(pixels(), rows, OFFSETS, (0.1,) * 3, (0.5,) * 3, device)
    here = split_images(pixels(), rows, OFFSETS, (0.1,) * 3, (0.5,) * 3, CPU)
    assert images.pixels.shape == (5, 3, 4, 2)
    assert images.identity == here.identity
    positions = images.sample_per_class(2, torch.Generator(device).manual_seed(0))
    assert images.labels[positions].tolist() == [0, 0, 1, 2, 2]
    torch.testing.assert_close(images.images(positions).cpu(), here.images(positions.cpu()))


def test_some_classes_are_numbered_anew_and_share_the_pixels():
    images = make()
    part = images.of_classes([2, 0])
    assert part.counts == (10, 5)
    assert part.pixels is images.pixels
    rows = torch.tensor([*range(7, 17), *range(5)])
    assert torch.equal(part.images(torch.arange(15)), images.images(rows))
    assert part.labels.tolist() == [0] * 10 + [1] * 5


def test_classes_of_one_size_are_sampled_by_the_same_keys_as_a_table_of_them():
    images = ClassImages(pixels(15), torch.arange(15), (0, 5, 10, 15), (0.5,) * 3, (0.2,) * 3)
    keys = torch.empty(3, 5, dtype=torch.int32).random_(generator=generator())
    expected = keys.topk(2, dim=1).indices + torch.tensor([[0], [5], [10]])
    assert torch.equal(images.sample_per_class(2, generator()), expected.flatten())


def test_keys_are_drawn_for_the_images_there_are_and_not_for_classes_times_the_largest():
    counts = [50_000, *[2] * 2_000]
    offsets = [0, *np.cumsum(counts).tolist()]
    images = ClassImages(
        torch.zeros(1, 1, 1, 1, dtype=torch.uint8),
        torch.zeros(offsets[-1], dtype=torch.int64),
        offsets,
        [0.5],
        [1.0],
    )
    positions = images.sample_per_class(3, generator())
    assert images.labels[positions].bincount().tolist() == [min(3, count) for count in counts]
    assert sum(members.numel() for members in images._orders[3].members) == len(images)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_rows_of_distinct_numbers_are_each_as_likely_as_any(device):
    rows = distinct(3000, 3, 7, torch.Generator(device).manual_seed(0)).cpu()
    assert rows.shape == (3000, 3)
    assert all(len(set(row)) == 3 for row in rows.tolist())
    for place in range(3):
        times = torch.bincount(rows[:, place], minlength=7)
        assert chisquare(times.numpy()).pvalue > 1e-4
    pairs = torch.bincount(rows[:, 0] * 7 + rows[:, 1], minlength=49)
    assert chisquare(pairs[pairs > 0].numpy()).pvalue > 1e-4
    assert (pairs > 0).sum() == 42


@needs_cuda
def test_batches_on_the_device_are_distinct_and_belong_to_their_stream(small_data):
    train = small_data().train
    there = ClassImages(train.pixels.cuda(), train.rows.cuda(), train.offsets, train.mean, train.std,
                        device=torch.device("cuda"))  # fmt: skip
    assert there.near
    first, again, other = (
        there.batches(4, 30, torch.Generator("cuda").manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(len(row.unique()) == 30 for row in first)
    whole = there.batches(2, len(train) + 5, torch.Generator("cuda").manual_seed(0))
    assert all(len(row[: len(train)].unique()) == len(train) for row in whole)
