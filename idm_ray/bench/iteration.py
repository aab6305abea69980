"""Part a: one iteration, in all and by phase."""

import statistics
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, ratio, spread, text, times
from idm_ray.bench.scene import base_scene, settings
from idm_ray.bench.stopwatch import PHASES, Lap
from idm_ray.bench.subject import Images, Subject
from idm_ray.bench.variants import choose_variants
from idm_ray.bench.worker import Worker
from idm_ray.condensation import condensation_flops
from idm_ray.settings.sections import Config

COLUMNS = ("", "first s", "median s", "min", "max", "faster", *(f"{phase} s" for phase in PHASES),
           "TFLOP/s", "peak MiB")  # fmt: skip
NOTES = (
    "first: with compilation, from an empty cache of compiled code. faster: than plain fp32, the median over "
    "turns; likewise in brackets.",
    "TFLOP/s: of the operations that the iteration needs. peak: of memory, beyond torch and the images.",
)


def measure(options: Options, say: Say) -> Result:
    """Iterations of every variant in turn, so that a machine that slows down slows all alike."""
    scene, amounts = base_scene(options), options.amounts
    variants = choose_variants(options.device, options.precisions, options.modes)
    laps: list[list[Lap]] = [[] for _ in variants]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(variant, options.threads)) for variant in variants]
        for worker in workers:
            images = worker.call(Subject.load, scene)
        for turn in range(amounts.warmup + amounts.iterations):
            for worker, taken in zip(workers, laps, strict=True):
                say(f"a: {worker.variant.name}, {_which(turn, amounts.warmup, amounts.iterations)}")
                taken.append(worker.call(Subject.iterate))
        peaks = [worker.call(Subject.peak_memory) for worker in workers]
    flops = (
        condensation_flops(scene.config, images.shape, images.num_classes) / scene.config.condense.iterations
    )
    measurements = []
    for variant, taken, peak in zip(variants, laps, peaks, strict=True):
        timed, base = taken[amounts.warmup :], laps[0][amounts.warmup :]
        measured = _measurement(timed, base) | {"first": taken[0].seconds, "peak_bytes": peak}
        measured["tflops"] = flops / measured["median"] / 1e12
        measurements.append({"variant": variant.name, "compute": str(variant.compute), **measured})
    facts = {"images": asdict(images), "flops": flops, "config": settings(scene)}
    table = Table(_title(scene.config, images), COLUMNS, tuple(_row(each) for each in measurements), NOTES)
    return Result((table,), facts, measurements)


def _which(turn: int, warmup: int, iterations: int) -> str:
    if turn < warmup:
        return f"warm-up {turn + 1} of {warmup}"
    return f"iteration {turn - warmup + 1} of {iterations}"


def _measurement(timed: list[Lap], base: list[Lap]) -> dict[str, Any]:
    seconds, reference = [lap.seconds for lap in timed], [lap.seconds for lap in base]
    phases = {}
    for phase in PHASES:
        mine, theirs = [lap.phases[phase] for lap in timed], [lap.phases[phase] for lap in base]
        phases[phase] = spread(mine) | {"faster": ratio(theirs, mine)}
    return spread(seconds) | {"faster": ratio(reference, seconds), "phases": phases}


def _row(measured: dict[str, Any]) -> tuple[str, ...]:
    phases = (
        f"{text(statistics.median(phase['seconds']))} ({times(phase['faster'])})"
        for phase in measured["phases"].values()
    )
    return (
        measured["variant"],
        *(text(measured[key]) for key in ("first", "median", "min", "max")),
        times(measured["faster"]),
        *phases,
        text(measured["tflops"]),
        f"{measured['peak_bytes'] / 2**20:.0f}",
    )


def _title(config: Config, images: Images) -> str:
    channels, height, width = images.shape
    condense, queue = config.condense, config.queue
    return (
        f"a. One iteration: {images.name} images {channels}x{height}x{width}, {images.num_classes} classes, ipc "
        f"{condense.ipc}, l {condense.partition}, B {condense.batch_real}, K {queue.train_steps} of batch "
        f"{queue.batch} on {queue.train_nets} nets, width {config.net.width}"
    )
