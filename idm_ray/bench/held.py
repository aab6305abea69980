"""What a condensation and a look at its validation accuracy hold of memory, in a new process as a trial has."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.bench.scene import Scene, scene_data
from idm_ray.condensation import condense
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.evaluation.forecast import Forecast, forecast
from idm_ray.evaluation.prepare import fingerprint
from idm_ray.runtime.compute import choose_compute, ready_process
from idm_ray.runtime.memory import forget_peak, give_back_freed_memory, held_bytes, peak_bytes
from idm_ray.runtime.states import write_state


@dataclass(frozen=True)
class Held:
    """Bytes, as `peak_bytes` counts them.

    Attributes:
        forecast: its `process` is what was held before there was anything to condense.
        peaks: most that was held until the end of the iterations, of the evaluation, and of the saving.
        seconds: of each iteration.
    """

    forecast: Forecast
    peaks: dict[str, int]
    seconds: tuple[float, ...]

    @property
    def measured(self) -> int:
        """The highest point."""
        return max(self.peaks.values())

    @property
    def ratio(self) -> float:
        """Of the forecast to what was measured."""
        return self.forecast.peak / self.measured

    @property
    def plain(self) -> dict[str, Any]:
        """All figures as plain data."""
        found = asdict(self)
        found["forecast"] |= {"peak": self.forecast.peak, "precision": str(self.forecast.precision)}
        return found


def hold(scene: Scene, folder: Path, threads: int) -> Held | None:
    """Condense, evaluate and save in a new process; None where that did not come to its end, as for want of memory.

    Args:
        scene: `compute` of its config says where and how.
        folder: for pixels, which are mapped, and what is saved.
        threads: of torch.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_hold, scene, folder, threads).result()
        except BrokenProcessPool:
            return None


def told(held: Held | None) -> str:
    """In a few words, for progress."""
    if held is None:
        return "it did not come to its end"
    return (
        f"{held.measured / 1e6:.0f} MB measured, {held.forecast.peak / 1e6:.0f} forecast ({held.ratio:.2f})"
    )


def _hold(scene: Scene, folder: Path, threads: int) -> Held:
    torch.set_num_threads(threads)
    config = scene.config
    compute = choose_compute(config.compute)
    ready_process(compute)
    data = scene_data(scene, compute.device, folder)
    cuda = compute.device.type == "cuda"
    pixels = data.train.pixels.nbytes if cuda and not scene.hosted else 0
    expected = forecast(config, data.outline, compute, pixels)
    give_back_freed_memory()
    forget_peak()
    expected = replace(expected, process=0.0 if cuda else held_bytes())
    peaks, seconds = {}, []
    run, began = condense(config, data, compute), time.perf_counter()
    for record in run:
        float(record.total)  # waits for a CUDA device
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    peaks["iterations"] = peak_bytes(compute.device)
    teaching, protocol = run.teaching, validation_protocol(config, data, compute)
    evaluate(run.images, teaching, config.condense.partition, protocol, teacher=run.teacher)
    peaks["evaluation"] = peak_bytes(compute.device)
    condensed = condensed_set(run.images, run.labels, config, data, run.iteration, teaching)
    save_condensed(folder / "condensed", condensed)
    write_state(folder / "state", run.state(), fingerprint(config, data))
    peaks["saving"] = peak_bytes(compute.device)
    return Held(expected, peaks, tuple(seconds))
