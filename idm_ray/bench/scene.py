"""Settings and images of one measurement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idm_ray.bench.amounts import Work
from idm_ray.bench.options import Options
from idm_ray.data import ClassImages, Data, load_data
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import Config, Raw

MEAN, STD = 0.5, 0.29


@dataclass(frozen=True)
class Scene:
    """What is run, small enough to be sent to another process.

    Attributes:
        config: all settings; preset official.
        classes: of random images.
        size: their side in pixels.
        per_class: random training images of a class.
        test: random test images in all.
        validation: random validation images of a class.
        hosted: whether random images stay in the host's memory where a GPU computes.
    """

    config: Config
    classes: int
    size: int
    per_class: int
    test: int
    validation: int = 0
    hosted: bool = False


def base_scene(options: Options) -> Scene:
    """CIFAR-10 at 10 images per class, or random images of its shape and number."""
    amounts = options.amounts
    evaluate = {"epochs": amounts.epochs, "repeats": amounts.repeats, "stack": options.stack}
    config = _config(options, amounts.work, amounts.ipc, {"evaluate": evaluate})
    if options.root is not None:
        raw = config.to_raw()
        raw["dataset"] = {"name": "parquet", "root": str(options.root), "validation": 0}
        config = build_config(("the benchmark", raw))
    return Scene(config, amounts.classes, amounts.size, amounts.per_class, amounts.test)


def scaled_scene(options: Options, classes: int, ipc: int, size: int) -> Scene:
    """Random images, just enough of each class for a batch and for the start of S."""
    amounts = options.amounts
    config = _config(options, amounts.scaling_work, ipc, {})
    per_class = max(amounts.scaling_work.batch_real, ipc * config.condense.partition**2)
    return Scene(config, classes, size, per_class, classes)


def held_scene(options: Options, layers: Sequence[Raw], classes: int, size: int, validation: int) -> Scene:
    """Settings on top of the defaults, and random images as `scaled_scene` has them."""
    config = build_config({"compute": {"device": options.device.type}, "search": {}}, *layers)
    per_class = max(config.condense.batch_real, config.condense.ipc * config.condense.partition**2)
    return Scene(config, classes, size, per_class, classes, validation)


def settings(scene: Scene) -> dict[str, Any]:
    """Those that matter to what is measured, as plain data."""
    raw = scene.config.to_raw()
    return {name: raw[name] for name in ("seed", "net", "condense", "queue", "evaluate")}


def shortened(scene: Scene, epochs: int) -> Scene:
    """The same with evaluations of so many epochs."""
    evaluate = scene.config.evaluate.model_copy(update={"epochs": epochs})
    return replace(scene, config=scene.config.model_copy(update={"evaluate": evaluate}))


def scene_data(scene: Scene, device: torch.device, folder: Path | None = None) -> Data:
    """The images of a scene on the device; random ones are the same in every process.

    Args:
        scene: says which.
        device: where nets run.
        folder: for files of random images, which are mapped, as those of an image store are; None keeps them in memory.

    Raises:
        UserError: the folder given with --root holds no such data.
    """
    if scene.config.dataset.root is not None:
        return load_data(scene.config.dataset, scene.config.seed, device)
    classes = scene.classes
    counts = {
        "train": scene.per_class * classes,
        "validation": scene.validation * classes,
        "test": scene.test,
    }
    place = torch.device("cpu") if scene.hosted else device
    generator = torch.Generator(place).manual_seed(0)
    parts = {}
    for name, count in counts.items():
        shape = (count, 3, scene.size, scene.size)
        pixels = _pixels(shape, generator, folder and folder / f"{name}.pixels")
        each = [count // classes + (label < count % classes) for label in range(classes)]
        rows, offsets = torch.arange(count, device=place), (0, *accumulate(each))
        parts[name] = ClassImages(pixels, rows, offsets, (MEAN,) * 3, (STD,) * 3, device=device)
    return Data(
        name="random",
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        class_names=tuple(str(label) for label in range(classes)),
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        shape=(3, scene.size, scene.size),
        checksum="",
        source="random pixels",
        class_ids=(),
        left_out=0,
    )


def _pixels(shape: tuple[int, ...], generator: torch.Generator, file: Path | None) -> Tensor:
    if file is None or generator.device.type == "cuda":
        return torch.randint(256, shape, dtype=torch.uint8, device=generator.device, generator=generator)
    with file.open("wb") as opened:
        for _ in range(shape[0]):
            image = torch.randint(256, shape[1:], dtype=torch.uint8, generator=generator)
            opened.write(image.numpy().tobytes())
    return torch.from_file(str(file), size=math.prod(shape), dtype=torch.uint8).view(shape)


def _config(options: Options, work: Work, ipc: int, more: dict[str, Any]) -> Config:
    raw = {
        "net": {"width": options.amounts.width},
        "condense": {"preset": "official", "ipc": ipc, "batch_real": work.batch_real},
        "queue": {"batch": work.queue_batch, "train_steps": work.train_steps},
        "search": {},
        **more,
    }
    return build_config(("the benchmark", raw))
