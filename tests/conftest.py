"""A data set small enough to condense in milliseconds."""

from collections.abc import Callable

import pytest
import torch

from idm_ray.compute import Compute
from idm_ray.config import Config
from idm_ray.data import ClassImages, Data
from idm_ray.layers import build_config, parse_overrides

SMALL = (
    "net.width=4",
    "net.depth=1",
    "condense.ipc=2",
    "condense.iterations=5",
    "condense.batch_real=6",
    "queue.batch=8",
    "queue.train_steps=2",
    "queue.push_every=2",
    "evaluate.epochs=3",
    "evaluate.repeats=2",
    "evaluate.batch=8",
    "search={}",
)
COUNTS = {"train": (20, 17, 23), "validation": (3, 3, 3), "test": (5, 5, 5)}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from more, and results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_config() -> Callable[..., Config]:
    """Builds a small config; ``key=value`` strings override it."""

    def build(*overrides: str) -> Config:
        return build_config(("tests", parse_overrides(SMALL)), ("override", parse_overrides(overrides)))

    return build


@pytest.fixture
def small_data() -> Callable[..., Data]:
    """Builds random images of 8x8 in 3 classes; `unseen` fills validation and test with other pixels."""

    def build(unseen: int | None = None, channels: int = 3) -> Data:
        generator = torch.Generator().manual_seed(7)
        parts = {}
        for name, counts in COUNTS.items():
            pixels = torch.randint(256, (sum(counts), channels, 8, 8), dtype=torch.uint8, generator=generator)
            if unseen is not None and name != "train":
                pixels.fill_(unseen)
            offsets = [sum(counts[:index]) for index in range(len(counts) + 1)]
            rows = torch.arange(sum(counts))
            parts[name] = ClassImages(pixels, rows, offsets, (0.5,) * channels, (0.25,) * channels)
        return Data(
            name="random",
            **parts,
            class_names=("ant", "bee", "cat"),
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            shape=(channels, 8, 8),
            checksum="0" * 64,
            source="random pixels",
        )

    return build


@pytest.fixture
def cpu() -> Compute:
    """Eager float32 on the CPU."""
    return Compute(torch.device("cpu"), torch.float32, compile=False)
