"""A condensed set on disk, and back. No pickles: Parquet, safetensors, JSON and PNG."""

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from idm_ray.artifacts.manifest import FORMAT, MANIFEST, TABLE, TENSORS, Manifest, of_the_set, read_manifest
from idm_ray.condensation import check_partition, expand
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.runtime.files import whole_folder
from idm_ray.runtime.versions import versions
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import Config

PIXELS_OF = 64
"""Images that are turned into pixels at a time."""
GRID_COLUMNS = 10
SUM_WITHIN = 1e-3
"""Of 1, the sum of an image's probabilities, which were rounded."""
TILE, GAP, LABEL, FONT = 84, 3, 20, 13
"""Pixels in the picture of S: the least side of an image, between two, and the height of a name."""


@dataclass(frozen=True)
class CondensedSet:
    """S with all that is needed to use it.

    Attributes:
        images: float32 [N, channels, H, W], normalised, exactly as optimised.
        labels: int64 [N].
        class_names: of each label.
        mean, std: per channel, in 0..1; pixel = image * std + mean.
        config: settings that made it, as plain data.
        checksum: of the data set it was condensed from.
        iteration: steps that S has taken.
        class_ids: WordNet id of each label; empty where the data set has none.
        left_out: broken images of the data set that were left out of it.
        probabilities: float32 [N, l * l, C], of each part of the images, where labels are soft.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    config: dict[str, Any]
    checksum: str
    iteration: int
    class_ids: tuple[str, ...] = ()
    left_out: int = 0
    probabilities: Tensor | None = None

    @property
    def teaching(self) -> Tensor:
        """What nets are taught: the probabilities where labels are soft, else the labels."""
        return self.labels if self.probabilities is None else self.probabilities

    @property
    def settings(self) -> Config:
        """The settings that made it, checked.

        Raises:
            UserError: `config` is not what this version knows.
        """
        return build_config((MANIFEST, self.config))

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [N, H, W, channels], clipped to what an image file can hold."""
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        finished = torch.empty(self.images.shape, dtype=torch.uint8)
        for pixels, images in zip(finished.split(PIXELS_OF), self.images.split(PIXELS_OF), strict=True):
            pixels.copy_(((images * std + mean) * 255).round().clamp(0, 255))
        return finished.permute(0, 2, 3, 1).numpy()


def condensed_set(
    images: Tensor, labels: Tensor, config: Config, data: Data, iteration: int, teaching: Tensor | None = None
) -> CondensedSet:
    """Join S with where it came from.

    Args:
        images: see `CondensedSet`.
        labels: likewise.
        config: of the condensation.
        iteration: see `CondensedSet`.
        data: that it was condensed from.
        teaching: what nets are taught, where these are not the labels.
    """
    soft = teaching is not None and teaching.dim() > 1
    return CondensedSet(
        images.detach().float().cpu(),
        labels.cpu(),
        data.class_names,
        data.mean,
        data.std,
        of_the_set(config.to_raw()),
        data.checksum,
        iteration,
        data.class_ids,
        data.left_out,
        teaching.detach().float().cpu() if soft and teaching is not None else None,
    )


def expanded(condensed: CondensedSet) -> CondensedSet:
    """The l x l parts of every image as images of their own, next to each other, as nets are trained on them.

    Raises:
        UserError: `config` is not what this version knows, or its l does not fit the images.
    """
    partition = condensed.settings.condense.partition
    channels, height, width = condensed.images.shape[1:]
    check_partition(partition, (channels, height, width))
    labels = condensed.labels.repeat_interleave(partition**2)
    of_parts = condensed.probabilities
    if of_parts is not None:
        of_parts = of_parts.flatten(0, 1)[:, None]
    images = expand(condensed.images, partition)
    return replace(condensed, images=images, labels=labels, probabilities=of_parts)


def save_condensed(folder: str | Path, condensed: CondensedSet) -> None:
    """Write `images.safetensors`, `images.parquet`, `grid.png` and `manifest.json` in one step.

    `images.parquet` has the Hugging Face image layout: pandas and `datasets` open it.
    """
    with whole_folder(Path(folder)) as draft:
        tensors = {"images": condensed.images.contiguous(), "labels": condensed.labels.contiguous()}
        if condensed.probabilities is not None:
            tensors["probabilities"] = condensed.probabilities.contiguous()
        save_file(tensors, draft / TENSORS)
        pq.write_table(_table(condensed), draft / TABLE)
        draw_grid(condensed).save(draft / "grid.png")
        manifest = {
            "format": FORMAT,
            "shape": list(condensed.images.shape),
            "class_names": list(condensed.class_names),
            "class_ids": list(condensed.class_ids),
            "mean": list(condensed.mean),
            "std": list(condensed.std),
            "iteration": condensed.iteration,
            "data_checksum": condensed.checksum,
            "left_out": condensed.left_out,
            "config": condensed.config,
            "versions": versions(),
            "sha256": {name: _sha256(draft / name) for name in (TENSORS, TABLE)},
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def load_condensed(folder: str | Path) -> CondensedSet:
    """Read back what `save_condensed` wrote; runs no code from the files.

    Raises:
        UserError: a file is missing or unreadable, or manifest and tensors disagree.
    """
    folder = Path(folder)
    manifest, tensor_path = read_manifest(folder), folder / TENSORS
    for path in (tensor_path, folder / TABLE):
        if path.exists() and not path.is_file():
            raise UserError(f"{folder} is not a condensed set: {path} is no regular file")
    try:
        tensors = load_file(tensor_path)
        images, labels = tensors["images"], tensors["labels"]
    except OSError as error:
        raise UserError(f"{folder} is not a condensed set: {tensor_path}: {error.strerror}") from None
    except (KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} is not a readable condensed set: {type(error).__name__} {error}") from None
    condensed = CondensedSet(
        images,
        labels,
        manifest.class_names,
        manifest.mean,
        manifest.std,
        manifest.config,
        manifest.checksum,
        manifest.iteration,
        manifest.class_ids,
        manifest.left_out,
        tensors.get("probabilities"),
    )
    _check(folder, condensed, manifest)
    return condensed


def _check(folder: Path, condensed: CondensedSet, manifest: Manifest) -> None:
    """Refuse what does not agree, and what agrees and means nothing."""
    images, labels, tensor_path = condensed.images, condensed.labels, folder / TENSORS
    expected = manifest.sha256.get(TENSORS), list(manifest.shape)
    if images.dtype != torch.float32 or labels.dtype != torch.int64 or labels.ndim != 1:
        raise UserError(
            f"{tensor_path} must hold images as float32 and labels as int64, one each; got {images.dtype}, "
            f"and {labels.dtype} of shape {list(labels.shape)}"
        )
    if (_sha256(tensor_path), list(images.shape)) != expected or len(labels) != len(images):
        raise UserError(
            f"manifest.json and images.safetensors in {folder} disagree: the manifest describes "
            f"{list(manifest.shape)}, the tensors are {list(images.shape)} with {len(labels)} labels, or their "
            "checksum differs; copy the folder again"
        )
    if not images.isfinite().all():
        raise UserError(
            f"{tensor_path} has pixels that are no numbers or without end; nothing can be learnt from it"
        )
    table = folder / TABLE
    if table.exists() and _sha256(table) != manifest.sha256.get(TABLE):
        raise UserError(
            f"{table} is not what manifest.json describes: its checksum differs; copy the folder again"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(condensed.class_names):
        raise UserError(
            f"labels in {folder} must be 0..{len(condensed.class_names) - 1}, as in manifest.json"
        )
    if condensed.probabilities is not None:
        _check_probabilities(condensed.probabilities, condensed, tensor_path)


def _check_probabilities(found: Tensor, condensed: CondensedSet, path: Path) -> None:
    expected = [len(condensed.images), condensed.settings.condense.partition**2, len(condensed.class_names)]
    if found.dtype != torch.float32 or list(found.shape) != expected:
        raise UserError(
            f"{path} must hold probabilities as float32 of shape {expected}, of each part and class; got "
            f"{found.dtype} of shape {list(found.shape)}"
        )
    if not bool((found >= 0).all() and ((found.sum(-1) - 1).abs() < SUM_WITHIN).all()):
        raise UserError(f"probabilities in {path} must be at least 0 and add up to 1")


def draw_grid(condensed: CondensedSet, columns: int = GRID_COLUMNS) -> Image.Image:
    """A picture of S: a labelled block per class, `columns` images in a row, enlarged to be seen.

    Several classes share a row where they have few images; of a class at most `columns` are shown.
    """
    pixels, labels = condensed.pixels, condensed.labels.numpy()
    classes = len(condensed.class_names)
    shown = min(columns, max(1, int(np.bincount(labels).max(initial=1))))
    side = max(pixels.shape[1], TILE)
    block = shown * (side + GAP) + GAP
    beside = min(classes, max(1, columns // shown))
    height = side + LABEL + 2 * GAP
    page = Image.new("RGB", (beside * block, -(-classes // beside) * height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(FONT)
    for label, name in enumerate(condensed.class_names):
        left, top = label % beside * block, label // beside * height
        pen.text(
            (left + GAP, top + LABEL // 2), _fitted(name, font, block - 2 * GAP), "black", font, anchor="lm"
        )
        for column, row in enumerate(np.flatnonzero(labels == label)[:shown]):
            tile = _picture(pixels[row]).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
            page.paste(tile, (left + GAP + column * (side + GAP), top + LABEL))
    return page


def _table(condensed: CondensedSet) -> pa.Table:
    rows = [
        {"bytes": png_bytes(pixels), "path": f"{index:05d}.png"}
        for index, pixels in enumerate(condensed.pixels)
    ]
    names = list(condensed.class_names)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"image": rows, "label": condensed.labels.tolist()}, schema=schema)


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def png_bytes(pixels: np.ndarray) -> bytes:
    """An image file of uint8 [H, W, channels], 1 or 3 of them."""
    buffer = io.BytesIO()
    _picture(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _fitted(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The name, shortened to `width` pixels."""
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(f"{name}…") > width:
        name = name[:-1]
    return f"{name}…"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
