"""A condensed set in the layouts of other programs."""

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from idm_ray.artifacts.condensed import CondensedSet, expanded, png_bytes
from idm_ray.errors import UserError
from idm_ray.runtime.files import whole_folder, write_bytes

CLASS_NAME_LENGTH = 60
"""Characters kept of a class name in a folder's name, which may have 255 bytes."""

CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DD_RANKING = {"cifar10": CIFAR, "cifar100": CIFAR, "tiny_imagenet": IMAGENET, "imagenet": IMAGENET}
"""Mean and standard deviation that DD-Ranking normalises its real images with (ddranking 0.2.0, utils/data.py)."""


def export_set(condensed: CondensedSet, kind: str, out: str | Path, expand: bool = True) -> None:
    """Write a condensed set for another program, whole or not at all.

    Args:
        condensed: the set.
        kind: a key of `EXPORTS`.
        out: a folder for `folder`, else a file; must not exist yet, or be empty.
        expand: the l x l parts of every image, as nets are trained on them; else the images as they are stored.

    Raises:
        UserError: no such kind, `out` holds something or cannot be written, or the set does not fit the kind.
    """
    if kind not in EXPORTS:
        raise UserError(f"a condensed set is exported to one of {', '.join(EXPORTS)}; got {kind!r}")
    out = Path(out)
    try:
        if any(out.iterdir()) if out.is_dir() else out.exists() and out.stat().st_size:
            raise UserError(f"an export overwrites nothing, but {out} holds something; choose another place")
        EXPORTS[kind](expanded(condensed) if expand else condensed, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None


def write_image_folder(condensed: CondensedSet, out: Path) -> None:
    """PNG files as torchvision's ImageFolder reads them: ``out/airplane/00000.png``; and `set.json`.

    ImageFolder numbers classes in the order of their folders' names. Folders have the names of the classes where
    that order is theirs; otherwise all have the label before the name: ``out/0_T-shirt_top/00000.png``.
    """
    with whole_folder(out) as draft:
        pixels = condensed.pixels
        for label, folder in enumerate(class_folders(condensed.class_names)):
            (draft / folder).mkdir()
            for number, row in enumerate(np.flatnonzero(condensed.labels.numpy() == label)):
                (draft / folder / f"{number:05d}.png").write_bytes(png_bytes(pixels[row]))
        facts = {
            "class_names": condensed.class_names,
            "class_ids": condensed.class_ids,
            "mean": condensed.mean,
            "std": condensed.std,
        }
        (draft / "set.json").write_text(json.dumps(facts, indent=2) + "\n")


def class_folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each class, safe on every system, whose alphabetical order is that of the classes."""
    safe = [re.sub(r"[^\w .,()+-]", "_", name)[:CLASS_NAME_LENGTH].strip(" .") for name in names]
    if all(safe) and safe == sorted(safe) and len({name.casefold() for name in safe}) == len(safe):
        return safe
    digits = len(str(len(names) - 1))
    return [f"{label:0{digits}d}_{name}".rstrip("_") for label, name in enumerate(safe)]


def write_npz(condensed: CondensedSet, out: Path) -> None:
    """Arrays for numpy, to be loaded without pickle.

    They are `images` float32 [N, channels, H, W] normalised, `pixels` uint8 [N, H, W, channels] clipped, `labels`
    int64 [N], `class_names`, `mean` and `std`; and `probabilities` float32 [N, C] where labels are soft.
    """
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "images": condensed.images.numpy(),
        "pixels": condensed.pixels,
        "labels": condensed.labels.numpy(),
        "class_names": np.array(condensed.class_names, dtype=np.str_),
        "mean": np.array(condensed.mean, dtype=np.float32),
        "std": np.array(condensed.std, dtype=np.float32),
    }
    if condensed.probabilities is not None:
        arrays["probabilities"] = condensed.probabilities.mean(1).numpy()
    np.savez(buffer, **arrays)
    write_bytes(out, buffer.getvalue())


def write_dd_ranking(condensed: CondensedSet, out: Path) -> None:
    """The tensors that DD-Ranking's metrics take as `image_tensor`, `hard_labels` and `soft_labels`, as safetensors.

    `images` is float32 [N, channels, H, W] and `labels` int64 [N], in the order of the classes. Images of data sets
    that DD-Ranking has are normalised like its own, with which they are compared; others as they were optimised.
    Classes of Tiny ImageNet are numbered as there: by their folders, not by ``wnids.txt``. Where labels are soft,
    `soft_labels` is float32 [N, C], logarithms of the probabilities: its losses take logits, as teachers give them.

    Raises:
        UserError: it is a set of Tiny ImageNet that does not say which label is which class.
    """
    name = condensed.settings.dataset.name
    classes = _by_folder(condensed) if name == "tiny_imagenet" else range(len(condensed.class_names))
    places = torch.empty(len(classes), dtype=torch.int64)
    places[torch.tensor(classes)] = torch.arange(len(classes))
    labels = places[condensed.labels]
    order = labels.argsort(stable=True)
    mean, std = DD_RANKING.get(name, (condensed.mean, condensed.std))
    tensors = {"images": _renormalised(condensed, mean, std)[order], "labels": labels[order]}
    if condensed.probabilities is not None:
        seen = condensed.probabilities.mean(1)[order][:, torch.tensor(classes)]
        tensors["soft_labels"] = seen.clamp_min(torch.finfo(seen.dtype).tiny).log()
    names = [condensed.class_names[label] for label in classes]
    facts = {"mean": mean, "std": std, "class_names": names}
    metadata = {key: json.dumps(value) for key, value in facts.items()}
    write_bytes(out, save(tensors, metadata))


def _by_folder(condensed: CondensedSet) -> list[int]:
    """The labels in the order of their WordNet ids, after which the folders of the classes are named."""
    ids = condensed.class_ids
    if not ids:
        raise UserError(
            "DD-Ranking numbers the classes of Tiny ImageNet by their folders, and this set does not say which class "
            "has which; condense it again with this version, which keeps the WordNet ids"
        )
    return sorted(range(len(ids)), key=ids.__getitem__)


def _renormalised(condensed: CondensedSet, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    if (mean, std) == (condensed.mean, condensed.std):
        return condensed.images
    before, after = (
        torch.tensor(pair, dtype=torch.float64)[:, :, None, None]
        for pair in ((condensed.mean, condensed.std), (mean, std))
    )
    return ((condensed.images * before[1] + before[0] - after[0]) / after[1]).float()


EXPORTS: dict[str, Callable[[CondensedSet, Path], None]] = {
    "folder": write_image_folder,
    "npz": write_npz,
    "dd-ranking": write_dd_ranking,
}
"""Writers of all kinds of export, given a set and where to."""
