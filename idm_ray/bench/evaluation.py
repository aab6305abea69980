"""Part b: a short evaluation, and an epoch of it."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, ratio, spread, text, times
from idm_ray.bench.scene import Scene, base_scene, settings
from idm_ray.bench.subject import Images, Judged, Subject
from idm_ray.bench.variants import choose_variants
from idm_ray.bench.worker import Worker

COLUMNS = ("", "first s", "whole s", "min", "max", "faster", "epoch s", "faster", "accuracy %", "peak MiB")
NOTES = (
    "first: an epoch for each net and judging, with compilation. whole: all nets trained and judged. epoch: of one "
    "net, from the difference to an evaluation of 1 epoch.",
    "faster: than plain fp32, the median over turns; - where an epoch is lost in the noise. peak: of memory, beyond "
    "torch and the images.",
)


def measure(options: Options, say: Say) -> Result:
    """Evaluations of every variant in turn: one of 1 epoch, then the whole one."""
    scene, amounts = base_scene(options), options.amounts
    variants = choose_variants(options.device, options.precisions, options.modes)
    short: list[list[Judged]] = [[] for _ in variants]
    whole: list[list[Judged]] = [[] for _ in variants]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(variant, options.threads)) for variant in variants]
        for worker in workers:
            images = worker.call(Subject.load, scene)
        for turn in range(1 + amounts.evaluations):
            which = f"evaluation {turn} of {amounts.evaluations}" if turn else "warm-up"
            for worker, brief, full in zip(workers, short, whole, strict=True):
                say(f"b: {worker.variant.name}, {which}")
                brief.append(worker.call(Subject.evaluate, 1))
                if turn:
                    full.append(worker.call(Subject.evaluate, amounts.epochs))
        peaks = [worker.call(Subject.peak_memory) for worker in workers]
    epochs = amounts.repeats * (amounts.epochs - 1)
    measurements: list[dict[str, Any]] = [
        {"variant": variant.name, "compute": str(variant.compute), "peak_bytes": peak}
        | _measurement(brief, full, epochs)
        for variant, peak, brief, full in zip(variants, peaks, short, whole, strict=True)
    ]
    plain = measurements[0]
    for each in measurements:
        each["faster"] = ratio(plain["seconds"], each["seconds"])
        known = plain["epoch"]["min"] > 0 and each["epoch"]["min"] > 0
        each["epoch"]["faster"] = (
            ratio(plain["epoch"]["seconds"], each["epoch"]["seconds"]) if known else None
        )
    facts = {"images": asdict(images), "config": settings(scene)}
    table = Table(_title(scene, images), COLUMNS, tuple(_row(each) for each in measurements), NOTES)
    return Result((table,), facts, measurements)


def _measurement(short: list[Judged], whole: list[Judged], epochs: int) -> dict[str, Any]:
    warm = [judged.seconds for judged in short[1:]]
    seconds = [judged.seconds for judged in whole]
    return {
        "first": short[0].seconds,
        **spread(seconds),
        "of_one_epoch": spread(warm),
        "epoch": spread([(full - brief) / epochs for brief, full in zip(warm, seconds, strict=True)]),
        "accuracy": whole[0].accuracy,
    }


def _row(measured: dict[str, Any]) -> tuple[str, ...]:
    return (
        measured["variant"],
        *(text(measured[key]) for key in ("first", "median", "min", "max")),
        times(measured["faster"]),
        text(measured["epoch"]["median"]),
        times(measured["epoch"]["faster"]),
        f"{measured['accuracy']:.1f}",
        f"{measured['peak_bytes'] / 2**20:.0f}",
    )


def _title(scene: Scene, images: Images) -> str:
    condense, evaluate = scene.config.condense, scene.config.evaluate
    parts = images.num_classes * condense.ipc * condense.partition**2
    return (
        f"b. Evaluation: {evaluate.repeats} nets of width {scene.config.net.width} trained for {evaluate.epochs} "
        f"epochs on {parts} parts, judged on {images.test} {images.name} images"
    )
