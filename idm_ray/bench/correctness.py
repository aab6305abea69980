"""Part l: what is condensed here, against the CPU in float64."""

from dataclasses import replace

import torch
from torch import Tensor

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.bench.scene import Scene, held_scene, scene_data
from idm_ray.condensation import METHODS, condense
from idm_ray.runtime.compute import Compute, choose_compute
from idm_ray.settings.reading import parse_overrides
from idm_ray.settings.sections import ComputeConfig

ITERATIONS = 2
BASE = (
    f"condense.iterations={ITERATIONS}",
    "condense.ipc=2",
    "condense.batch_real=8",
    "queue.batch=8",
    "gradient.outer=2",
    "gradient.inner=2",
    "trajectory.max_start_epoch=2",
    "trajectory.syn_steps=3",
    "cafe.most_steps=2",
    "cafe.most_epochs=2",
    "cafe.query=4",
    "select.epochs=2",
    "unroll.steps=2",
    "unroll.epochs=1",
)
MORE = dict.fromkeys(("idm", "idc"), ("queue.train_steps=2",))
CLASSES = 3
CPU = torch.device("cpu")
NOTES = (
    f"S after {ITERATIONS} iterations from the same batches and draws: how far it is from S of the CPU in float64 by "
    "plain operations, as a part of the way that this one has gone; for methods that choose images, of its length.",
)


def measure(options: Options, say: Say) -> Result:
    """Every method, by image size and precision."""
    ways = {"fp64": Compute(options.device, torch.float64, compile=False)}
    for precision in options.precisions:
        settings = ComputeConfig.model_validate({"device": options.device.type, "precision": precision})
        ways[precision] = choose_compute(settings)
    rows, measured = [], []
    for side, width in options.amounts.correctness:
        for method in METHODS:
            say(f"l: {method} at {side} pixels")
            given = (f"condense.method={method}", f"net.width={width}", *MORE.get(method, ()))
            layers = (parse_overrides((*BASE, *given)),)
            scene = replace(held_scene(options, layers, CLASSES, side, 1), hosted=True)
            start, exact = _condensed(scene, Compute(CPU, torch.float64, compile=False))
            moved = exact if torch.equal(start, exact) else exact - start
            off = {
                name: float((_condensed(scene, way)[1] - exact).norm() / moved.norm())
                for name, way in ways.items()
            }
            rows.append((method, str(side), *(f"{value:.1e}" for value in off.values())))
            measured.append({"method": method, "side": side, "off": off})
    table = Table(
        "l. What is condensed here, against the CPU in float64", ("", "side", *ways), tuple(rows), NOTES
    )
    return Result((table,), {"base": BASE, "classes": CLASSES}, measured)


def _condensed(scene: Scene, compute: Compute) -> tuple[Tensor, Tensor]:
    """S before and after, float64 on the CPU."""
    data = scene_data(replace(scene, hosted=compute.device.type == "cuda"), compute.device)
    with compute.rounding():
        run = condense(scene.config, data, compute)
        start = run.images.to(CPU, torch.float64)
        for _ in run:
            pass
    return start, run.images.to(CPU, torch.float64)
