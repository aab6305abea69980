"""Part k: the highest point of memory against classes and images per class, where images are large."""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from idm_ray.bench.amounts import Large
from idm_ray.bench.held import Held, hold, told
from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text
from idm_ray.bench.scene import held_scene
from idm_ray.condensation import condensation_flops
from idm_ray.settings.reading import parse_overrides

BASE = (
    "condense.iterations=1",
    "condense.partition=2",
    "evaluate.every=1",
    "evaluate.epochs=1",
    "evaluate.batch=16",
    "queue.batch=16",
    "queue.train_steps=1",
    "queue.train_nets=1",
)
COLUMNS = ("classes", "ipc", "real batch", "kept", "forecast", "measured", "ratio", "iteration s", "TFLOP/s")


def measure(options: Options, say: Say) -> Result:
    """One iteration of each, a look at validation accuracy of one epoch, and what a trial saves."""
    side, rows, measured = options.amounts.large_size, [], []
    for point in options.amounts.large:
        say(f"k: {point.classes} classes, ipc {point.ipc}, {point.batch_real} real images of each")
        given = (f"condense.ipc={point.ipc}", f"condense.batch_real={point.batch_real}")
        scene = held_scene(options, (parse_overrides((*BASE, *given)),), point.classes, side, 1)
        scene = replace(scene, hosted=point.hosted)
        with tempfile.TemporaryDirectory(prefix="idm_ray_bench_") as folder:
            held = hold(scene, Path(folder), options.threads)
        rows.append(_row(point, held, condensation_flops(scene.config, (3, side, side), point.classes)))
        say(f"k: {told(held)}")
        measured.append({**asdict(point), "held": held and held.plain})
    title = f"k. The highest point of memory at {side} pixels: l 2, batches of 16 images"
    notes = (
        "One iteration, in which one net of the queue is trained a step; one epoch of evaluation, and all that a trial "
        "saves; each in a new process. MB. kept: S, its velocity and the queue of nets, held all the time.",
    )
    return Result((Table(title, COLUMNS, tuple(rows), notes),), {"base": BASE, "size": side}, measured)


def _row(point: Large, held: Held | None, flops: float) -> tuple[str, ...]:
    where = " from the host" * point.hosted
    head = (str(point.classes), str(point.ipc), f"{point.batch_real}{where}")
    if held is None:
        return (*head, *("-",) * (len(COLUMNS) - len(head)))
    sizes = (held.forecast.kept, held.forecast.peak, held.measured)
    speed = text(held.seconds[0]), text(flops / held.seconds[0] / 1e12)
    return (*head, *(f"{size / 1e6:.0f}" for size in sizes), f"{held.ratio:.2f}", *speed)
