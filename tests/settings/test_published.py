"""Published figures: whose, of which classes, and that the page has the same ones."""

import re

import pytest

from idm_ray.settings.published import HIGH_RESOLUTION, WHOLE, column, place_of
from idm_ray.settings.sections import DatasetConfig
from idm_ray.settings.shipped import CONFIGS
from idm_ray.settings.subsets import SUBSETS

PAGE = (CONFIGS.parent / "docs" / "data.md").read_text(encoding="utf-8")
ROWS = ("Random", "DM", "DataDAM", "MTT", "RDED", "NCFM", "DANCE")


def rows_of(section):
    lines = PAGE.partition(section)[2].partition("\n## ")[0].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `image")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_page_has_the_figures_of_the_reports():
    page = rows_of("### Published figures")
    assert page.keys() == HIGH_RESOLUTION.keys()
    for place, cells in page.items():
        known = [column(place, ipc) for ipc in (1, 10)]
        pairs = [", ".join(each[row].text for each in known if row in each) for row in ROWS]
        assert cells == [*pairs, known[0][WHOLE].text if WHOLE in known[0] else ""]


def test_the_page_has_every_named_list():
    named = re.findall(r"`(imagenet[\w-]*|image[a-z-]+|all)`", PAGE.partition("\n## ImageNet\n")[2])
    assert set(SUBSETS) - {f"imagenet-{letter}-glad" for letter in "bcd"} <= set(named)


@pytest.mark.parametrize(
    ("dataset", "place"),
    [
        ({"name": "cifar10"}, "cifar10"),
        ({"name": "imagenet", "subset": "imagenet100-idm"}, "imagenet_subset"),
        ({"name": "imagenet", "subset": "imagenet100-idm", "image_size": 224}, "imagenet_subset"),
        ({"name": "imagenet", "subset": "imagenet100-cmc"}, ""),
        ({"name": "imagenet", "subset": "imagewoof", "image_size": 128}, "imagewoof"),
        ({"name": "imagenet", "subset": "imagewoof"}, ""),
        ({"name": "imagenet"}, ""),
        ({"name": "imagenet", "subset": "my/list.txt"}, ""),
    ],
)
def test_figures_of_imagenet_belong_to_a_list_at_a_size(dataset, place):
    assert place_of(DatasetConfig(**dataset)) == place
    assert bool(column(place, 10)) == bool(place)


@pytest.mark.parametrize("name", ["imagefruit", "imageyellow"])
def test_no_method_has_figures_on_both_lists_of_a_name(name):
    assert not column(name, 10).keys() & column(f"{name}-ncfm", 10).keys()
