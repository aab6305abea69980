"""The class lists of ImageNet that have names."""

import difflib
from pathlib import Path

from idm_ray.errors import brief

SUBSETS = (
    "all",
    "imagenet100-idm",
    "imagenet100-cmc",
    "imagenet10-idc",
    "imagenette",
    "imagewoof",
    "imagefruit",
    "imagefruit-ncfm",
    "imageyellow",
    "imageyellow-ncfm",
    "imagemeow",
    "imagesquawk",
    "imagenet-a-glad",
    "imagenet-b-glad",
    "imagenet-c-glad",
    "imagenet-d-glad",
    "imagenet-e-glad",
)
"""Each is a file in ``idm_ray/data/classlists/``; SOURCES.md there tells where they are from."""


def check_subset(subset: str) -> str:
    """The name of a list, or the absolute path of a file, since trials and whoever resumes may stand elsewhere.

    Raises:
        ValueError: neither the name of a list nor, by its look, a file.
    """
    if subset in SUBSETS:
        return subset
    try:
        path = Path(subset).expanduser()
    except RuntimeError as error:  # ~ and a name that nobody here has
        raise ValueError(str(error)) from None
    if "/" in subset or path.suffix or path.is_file():
        return str(path.absolute())
    close = difflib.get_close_matches(subset.lower().replace("_", "-"), SUBSETS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"must be one of {', '.join(SUBSETS)} or a file of WordNet ids; got {brief(subset)}{hint}"
    )
