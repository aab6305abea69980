"""Part j: the forecast of memory against what was measured."""

import tempfile
from pathlib import Path

from idm_ray.bench.held import Held, hold, told
from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.bench.scene import held_scene
from idm_ray.settings.reading import parse_overrides

ITERATIONS, EPOCHS = 3, 2
BASE = (
    f"condense.iterations={ITERATIONS}",
    f"evaluate.every={ITERATIONS}",
    f"evaluate.epochs={EPOCHS}",
    "queue.batch=64",
    "queue.train_steps=2",
    "gradient.outer=2",
    "gradient.inner=2",
    "trajectory.max_start_epoch=2",
    "trajectory.syn_steps=3",
    "cafe.most_steps=2",
    "cafe.most_epochs=2",
)
CLASSES, VALIDATION = 10, 10
"""Classes, and random validation images of each."""
COLUMNS = ("setting", "before", "forecast", "measured", "ratio", "forecast to be for")
NOTES = (
    f"Random pixels in a mapped file, {CLASSES} classes, {ITERATIONS} iterations, a look at validation accuracy of "
    f"{EPOCHS} epochs, and all that a trial saves, each in a new process. Sizes in MB.",
    "before: what the process holds before there is anything to condense, part of all that follows. ratio: of the "
    "forecast to what was measured.",
)


def measure(options: Options, say: Say) -> Result:
    """One setting after another."""
    rows, measured = [], []
    for setting in options.amounts.forecasts:
        say(f"j: {setting}")
        side, *overrides = setting.split()
        layers = parse_overrides(BASE), parse_overrides(overrides)
        scene = held_scene(options, layers, CLASSES, int(side), VALIDATION)
        with tempfile.TemporaryDirectory(prefix="idm_ray_bench_") as folder:
            held = hold(scene, Path(folder), options.threads)
        rows.append((name(setting), *_row(held)))
        say(f"j: {told(held)}")
        measured.append({"setting": setting, "held": held and held.plain})
    table = Table("j. The forecast of memory", COLUMNS, tuple(rows), NOTES)
    return Result((table,), {"base": BASE, "classes": CLASSES}, measured)


def name(setting: str) -> str:
    """``32 px, resnet18, batch_real 16`` of ``32 net.name=resnet18 condense.batch_real=16``."""
    side, *overrides = setting.split()
    named = []
    for override in overrides:
        key, value = override.split("=")
        key = key.partition(".")[2]
        named.append(value if key in ("name", "method", "precision") else f"{key} {value}")
    return ", ".join((f"{side} px", *named))


def _row(held: Held | None) -> tuple[str, ...]:
    if held is None:
        return ("-",) * (len(COLUMNS) - 2) + (told(held),)
    sizes = (held.forecast.process, held.forecast.peak, held.measured)
    return (*(f"{size / 1e6:.0f}" for size in sizes), f"{held.ratio:.2f}", held.forecast.largest)
