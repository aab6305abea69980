import json

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset
from torchvision.models import resnet18
from torchvision.transforms import v2

from idm_ray.artifacts.dataset import CondensedDataset
from idm_ray.condensation.augment import augment, draw_per_image
from idm_ray.errors import UserError
from idm_ray.evaluation import full_protocol
from idm_ray.evaluation.protocol import as_trained

CPU = torch.device("cpu")


def stacked(dataset):
    """All items, one by one."""
    images, labels = zip(*dataset, strict=True)
    return torch.stack(images), torch.tensor(labels)


def pixels(images, mean=0.5, std=0.25):
    """Number by number."""
    numbers = [min(max(value * std + mean, 0.0), 1.0) for value in images.double().flatten().tolist()]
    return torch.tensor(numbers).view(images.shape)


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_items_are_what_the_evaluation_trains_on(store, small_config, small_data, cpu, partition):
    override = f"condense.partition={partition}"
    condensed, folder = store(override)
    protocol = full_protocol(small_config(override), small_data(), cpu)
    fetch, labels = as_trained(condensed.images, condensed.labels, partition, protocol)
    expected = fetch(torch.arange(len(labels))), labels
    dataset = CondensedDataset(folder)
    found = stacked(dataset)
    assert len(dataset) == 6 * partition**2
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    assert torch.equal(dataset.images, expected[0])
    assert torch.equal(dataset.labels, expected[1])


def test_parts_come_row_by_row(store):
    condensed, folder = store("condense.partition=2")
    corners = [condensed.images[0, :, row, column] for row in (0, -1) for column in (0, -1)]
    parts = [CondensedDataset(folder)[index][0] for index in range(4)]
    places = [(row, column) for row in (0, -1) for column in (0, -1)]
    for part, corner, (row, column) in zip(parts, corners, places, strict=True):
        assert torch.equal(part[:, row, column], corner)  # an outer corner of a cell is no mixture of pixels


def test_whole_images_are_the_stored_ones(store):
    condensed, folder = store()
    images, labels = stacked(CondensedDataset(folder, expand=False))
    assert torch.equal(images, condensed.images)
    assert torch.equal(labels, condensed.labels)


@pytest.mark.parametrize("expand", [True, False])
def test_pixels_are_in_0_to_1(store, expand):
    _, folder = store()
    dataset = CondensedDataset(folder, expand=expand, normalise=False)
    expected = pixels(CondensedDataset(folder, expand=expand).images)
    torch.testing.assert_close(dataset.images, expected)
    torch.testing.assert_close(stacked(dataset)[0], expected)
    assert (dataset.images.min(), dataset.images.max()) == (0, 1)


def test_it_says_what_the_set_is(store):
    condensed, folder = store("condense.partition=2")
    dataset, whole = CondensedDataset(str(folder)), CondensedDataset(folder, expand=False)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert dataset.classes == ["ant", "bee", "cat"]
    assert (dataset.mean, dataset.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (dataset.ipc, dataset.partition, whole.partition) == (2, 2, 1)
    assert (dataset.config, dataset.checksum) == (condensed.config, condensed.checksum)
    assert [type(part) for part in dataset[0]] == [torch.Tensor, int]


def expected_batches(images, strategy, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    for part in images.split(sizes):
        yield augment(part, draw_per_image(strategy, len(part), generator, CPU), [1] * len(part))


@pytest.mark.parametrize("strategy", ["color_crop_cutout_flip_scale_rotate", "rotate", "none"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_batch_is_augmented_as_the_evaluation_does(store, strategy, normalise):
    _, folder = store(f"evaluate.augment={strategy}")
    dataset = CondensedDataset(folder, augment=True, normalise=normalise)
    expected = list(expected_batches(CondensedDataset(folder).images, strategy, 10, seed=3))
    loader = DataLoader(dataset, 10, generator=torch.Generator())  # it draws its own numbers elsewhere
    torch.manual_seed(3)
    for (found, labels), images, start in zip(loader, expected, (0, 10, 20), strict=True):
        torch.testing.assert_close(found, images if normalise else pixels(images), rtol=0, atol=1e-6)
        assert torch.equal(labels, dataset.labels[start : start + 10])


def test_an_item_alone_is_a_batch_of_one(store):
    _, folder = store()
    dataset = CondensedDataset(folder, augment=True)
    torch.manual_seed(4)
    alone = [dataset[index][0] for index in range(8)]
    plain = CondensedDataset(folder).images[:8]
    assert torch.equal(
        torch.stack(alone), torch.cat(list(expected_batches(plain, dataset.augmentation, 1, seed=4)))
    )


def test_without_augmentation_no_random_number_is_drawn(store):
    dataset = CondensedDataset(store()[1])
    before = torch.get_rng_state()
    stacked(dataset)
    assert torch.equal(torch.get_rng_state(), before)


def epoch(loader):
    return torch.cat([images for images, _ in loader])


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}])
def test_augmentation_differs_between_epochs_and_workers_and_repeats_with_the_seed(store, options):
    dataset = CondensedDataset(store()[1], augment=True)
    same_images = Subset(dataset, [0, 1, 2, 3] * 2)  # the second batch is the second worker's
    loaders = [DataLoader(same_images, 4, **options) for _ in range(2)]
    runs = []
    for loader in loaders:
        torch.manual_seed(5)
        runs.append([epoch(loader) for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[0][1])
    assert not torch.equal(*runs[0][0].split(4))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_the_same_items(store, start):
    dataset = CondensedDataset(store()[1], normalise=False, transform=v2.Resize(4))
    loader = DataLoader(dataset, 7, num_workers=1, multiprocessing_context=start)
    assert torch.equal(epoch(loader), epoch(DataLoader(dataset, 7)))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_transform_comes_last(store, normalise):
    _, folder = store("evaluate.augment=flip")
    seen = []

    def transform(image):
        seen.append(image)
        return v2.functional.resize(image, [16, 16])

    dataset = CondensedDataset(folder, normalise=normalise, augment=True, transform=transform)
    torch.manual_seed(6)
    images, _ = next(iter(DataLoader(dataset, 5, generator=torch.Generator())))
    torch.manual_seed(6)
    plain = CondensedDataset(folder, normalise=normalise, augment=True).__getitems__(range(5))
    assert images.shape == (5, 3, 16, 16)
    assert torch.equal(torch.stack(seen), torch.stack([image for image, _ in plain]))


def test_changing_an_item_leaves_the_set_as_it_is(store):
    dataset = CondensedDataset(store()[1])
    before = dataset[0][0].clone()
    dataset[0][0].zero_()
    assert torch.equal(dataset[0][0], before)


@pytest.mark.parametrize("augmented", [True, False])
def test_a_resnet_of_torchvision_learns_from_it(store, augmented):
    dataset = CondensedDataset(store("evaluate.augment=flip")[1], augment=augmented)
    torch.manual_seed(0)
    net = resnet18(num_classes=3)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        for images, labels in DataLoader(dataset, 12, shuffle=True):
            loss = cross_entropy(net(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_what_is_no_condensed_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a condensed set"):
        CondensedDataset(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("condense", "partition", 9, "does not fit images of 8x8"),
        ("condense", "partition", 0, "condense.partition"),
        ("evaluate", "augment", "blur", "evaluate.augment"),
    ],
)
def test_settings_that_cannot_be_are_refused(store, section, key, value, message):
    _, folder = store()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"][section][key] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        CondensedDataset(folder)
