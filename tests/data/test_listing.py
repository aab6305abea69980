import os
from pathlib import Path

import pytest

from idm_ray.data.listing import Listing

ROOT = Path("/set")
ENTRIES = [(ROOT / name, label) for name, label in (("a/1.png", 0), ("a/ä b.png", 0), ("b/c/2.png", 1))]


def test_a_listing_gives_back_what_it_was_given():
    listing = Listing(ROOT, ENTRIES[:1])
    listing.extend(ENTRIES[1:])
    assert (len(listing), list(listing)) == (3, ENTRIES)
    assert listing.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("start", range(4))
def test_files_may_be_taken_from_one_on(start):
    assert list(Listing(ROOT, ENTRIES).paths(start)) == [path for path, _ in ENTRIES[start:]]


def test_names_need_not_be_text():
    path = ROOT / os.fsdecode(b"a/\xff.png")
    assert list(Listing(ROOT, [(path, 0)])) == [(path, 0)]


def test_a_file_elsewhere_does_not_belong():
    with pytest.raises(ValueError, match="not in the subpath"):
        Listing(ROOT, [(Path("/other/1.png"), 0)])
