"""Lists of classes by WordNet id, and what the classes are called."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from idm_ray.errors import UserError
from idm_ray.settings.subsets import SUBSETS

CLASSLISTS = Path(__file__).with_name("classlists")
WNID = re.compile(r"n\d{8}")


def subset_ids(subset: str | None) -> tuple[str, ...]:
    """The WordNet ids of a subset of ImageNet in label order.

    Args:
        subset: the name of a list, or a file whose lines begin with an id; # opens a comment. None: all 1000.

    Raises:
        UserError: the file cannot be read, or has a line that is no id, an id twice, or fewer than two.
    """
    if subset is None or subset in SUBSETS:
        return _named(subset or "all")
    try:
        lines = Path(subset).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"dataset.subset={subset} cannot be read ({reason}); name a file or a list") from None
    first_on: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if not WNID.fullmatch(words[0]):
            raise UserError(
                f"every line of dataset.subset={subset} must begin with a WordNet id such as n01440764; "
                f"line {number} has {words[0]!r}"
            )
        if words[0] in first_on:
            raise UserError(
                f"dataset.subset={subset} must name a class once; {words[0]} is on the lines "
                f"{first_on[words[0]]} and {number}"
            )
        first_on[words[0]] = number
    if len(first_on) < 2:
        raise UserError(f"dataset.subset={subset} must name at least 2 classes; it names {len(first_on)}")
    return tuple(first_on)


@functools.cache
def _named(name: str) -> tuple[str, ...]:
    return tuple((CLASSLISTS / f"{name}.txt").read_text(encoding="utf-8").split())


def class_words(ids: Sequence[str]) -> tuple[str, ...]:
    """What torchvision's weights call the classes, different for each; other ids than the 1000 are their own names."""
    from torchvision.models import ResNet18_Weights  # takes seconds to load

    words: Mapping[str, str] = dict(
        zip(_named("all"), ResNet18_Weights.IMAGENET1K_V1.meta["categories"], strict=True)
    )
    return tuple(words.get(wnid, wnid) for wnid in ids)


def held_lists(held: Sequence[str]) -> tuple[str, ...]:
    """The named lists all of whose classes are among these."""
    return tuple(name for name in SUBSETS if set(_named(name)) <= set(held))


def refuse_missing(missing: Sequence[str], wanted: int, where: str, held: Sequence[str]) -> None:
    """Tell in a line of the first few classes that are missing.

    Args:
        missing: WordNet ids; nothing happens without any.
        wanted: how many there should be.
        where: words for where they are looked for.
        held: those that are there, missing or not wanted.

    Raises:
        UserError: some are missing.
    """
    if not missing:
        return
    lists = held_lists(held)
    hint = f"set dataset.subset={lists[0]}" if lists else "choose another dataset.subset or dataset.root"
    raise UserError(
        f"every class of dataset.subset must be there; {where} lacks {first_few(missing)} "
        f"({len(missing)} of {wanted}); {hint}"
    )


def first_few(items: Sequence[str], few: int = 3) -> str:
    """``n01440764, n02102040, n02979186, ...``."""
    return ", ".join(items[:few]) + ", ..." * (len(items) > few)
