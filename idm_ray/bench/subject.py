"""One variant at work: condensing or evaluating, step by step as it is told."""

import statistics
import time
from dataclasses import dataclass

import torch
import torch._dynamo  # imported by torch.optim and torch.compile at their first call, which is timed

from idm_ray.bench.peak import PeakMemory
from idm_ray.bench.plain import PlainCondensation
from idm_ray.bench.plain_evaluation import plain_evaluation
from idm_ray.bench.scene import Scene, scene_data, shortened
from idm_ray.bench.stopwatch import Lap, Stopwatch
from idm_ray.bench.variants import Variant
from idm_ray.condensation import Condensation, condense
from idm_ray.condensation.objectives.total import class_labels
from idm_ray.condensation.partition import start_images
from idm_ray.data import Data
from idm_ray.evaluation import evaluate, full_protocol
from idm_ray.runtime.compute import allow_tf32, ready_process


@dataclass(frozen=True)
class Images:
    """What images a scene has: name of their source, (channels, height, width), classes, images of both parts."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    train: int
    test: int


@dataclass(frozen=True)
class Judged:
    """Seconds of an evaluation, and the mean accuracy in percent that it found."""

    seconds: float
    accuracy: float


class Subject:
    """Lives alone in a process, so that settings of the process and its memory are those of one variant.

    Args:
        variant: how to compute.
        threads: of torch.
    """

    def __init__(self, variant: Variant, threads: int):
        torch.set_num_threads(threads)
        if variant.plain:
            allow_tf32(variant.compute.tf32)
        else:
            ready_process(variant.compute)
        self._variant = variant
        self._cuda = variant.compute.device.type == "cuda"
        self._stopwatch = Stopwatch(variant.compute.device)
        self._scene: Scene
        self._data: Data
        self._peak: PeakMemory
        self._run: Condensation | PlainCondensation | None = None

    def load(self, scene: Scene) -> Images:
        """Get the images; what was compiled for others is forgotten."""
        self._run = None
        if self._variant.compute.compile:
            torch.compiler.reset()
        self._scene = scene
        self._data = data = scene_data(scene, self._variant.compute.device)
        self._peak = PeakMemory(self._variant.compute.device)
        return Images(data.name, data.shape, data.num_classes, len(data.train), len(data.test))

    def iterate(self) -> Lap:
        """One iteration of a condensation that the first call starts."""
        config = self._scene.config
        if self._run is None:
            if self._variant.plain:
                self._run = PlainCondensation(config, self._data, self._variant.compute.precision)
            else:
                self._run = condense(config, self._data, self._variant.compute)
        elif self._cuda:
            self._run.advance()  # untimed: it fills the allocator, see `_give_way`
        lap = self._stopwatch.lap(self._run.advance)
        self._give_way()
        return lap

    def evaluate(self, epochs: int) -> Judged:
        """An evaluation of S at its start, each net trained for so many epochs."""
        if self._cuda:
            self._evaluate(1)
        judged = self._evaluate(epochs)
        self._give_way()
        return judged

    def peak_memory(self) -> int:
        """Bytes beyond the images, at the highest point since `load`."""
        return self._peak.read()

    def _evaluate(self, epochs: int) -> Judged:
        config, data = shortened(self._scene, epochs).config, self._data
        settings = config.condense
        images = start_images(data.train, settings.ipc, settings.partition, settings.init, config.seed)
        labels = class_labels(data.num_classes, settings.ipc, images.device)
        protocol = full_protocol(config, data, self._variant.compute)
        began = time.perf_counter()
        if self._variant.plain:
            runs = plain_evaluation(images, labels, settings.partition, protocol)
        else:
            runs = evaluate(images, labels, settings.partition, protocol).runs
        return Judged(time.perf_counter() - began, statistics.fmean(runs))

    def _give_way(self) -> None:
        """Leave the device's memory to the other variants' processes, whose turn is next."""
        if self._cuda:
            torch.cuda.empty_cache()
