"""Part f: the time of an iteration against classes, ipc and image size, one at a time."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, ratio, spread, text, times
from idm_ray.bench.scene import scaled_scene, settings
from idm_ray.bench.stopwatch import Lap
from idm_ray.bench.subject import Subject
from idm_ray.bench.variants import choose_variants, fastest
from idm_ray.bench.worker import VariantFailed, Worker
from idm_ray.nets.convnet import default_depth

Point = dict[str, int]
NOTES = ("Median seconds; in brackets how many times faster than plain fp32, the median over turns.",)


def measure(options: Options, say: Say) -> Result:
    """Iterations of the plain reference and of the product's last way in each precision."""
    variants = fastest(choose_variants(options.device, options.precisions, options.modes))
    measurements = []
    with ExitStack() as stack:
        tracks = [_Track(Worker(variant, options.threads), options) for variant in variants]
        for track in tracks:
            stack.callback(track.close)
        for point in points(options):
            say(f"f: {', '.join(f'{name} {value}' for name, value in point.items())}")
            for track in tracks:
                track.begin(point)
            for _ in range(options.amounts.warmup + options.amounts.iterations):
                for track in tracks:
                    track.iterate()
            measurements.append({**point, "variants": [_measurement(track, tracks[0]) for track in tracks]})
    columns = (*options.amounts.axes, "depth", *(f"{variant.name} s" for variant in variants))
    table = Table(_title(options), columns, tuple(_row(each) for each in measurements), NOTES)
    base = next(points(options))
    facts = {"base": base, "config": settings(scaled_scene(options, **base))}
    return Result((table,), facts, measurements)


def points(options: Options) -> Iterator[Point]:
    """The base, then every other value of each axis with the rest at the base."""
    axes = options.amounts.axes
    base = {axis: values[0] for axis, values in axes.items()}
    yield base
    for axis, values in axes.items():
        yield from ({**base, axis: value} for value in values[1:])


class _Track:
    """A variant's way through the points; where it fails, it goes on at the next point in a new process."""

    def __init__(self, worker: Worker, options: Options):
        self.worker, self._options = worker, options
        self.laps: list[Lap] = []
        self.error = ""

    def begin(self, point: Point) -> None:
        if self.error:
            self.worker.close()
            self.worker = Worker(self.worker.variant, self._options.threads)
        self.laps, self.error = [], ""
        try:
            self.worker.call(Subject.load, scaled_scene(self._options, **point))
        except VariantFailed as failed:
            self.error = str(failed)

    def iterate(self) -> None:
        if self.error:
            return
        try:
            self.laps.append(self.worker.call(Subject.iterate))
        except VariantFailed as failed:
            self.error = str(failed)

    @property
    def seconds(self) -> list[float]:
        """Of the timed iterations."""
        return [lap.seconds for lap in self.laps[self._options.amounts.warmup :]]

    def close(self) -> None:
        self.worker.close()


def _measurement(track: _Track, plain: _Track) -> dict[str, Any]:
    variant = track.worker.variant
    named = {"variant": variant.name, "compute": str(variant.compute)}
    if track.error:
        return {**named, "error": track.error}
    faster = None if plain.error else ratio(plain.seconds, track.seconds)
    return {**named, "first": track.laps[0].seconds, **spread(track.seconds), "faster": faster}


def _row(measured: dict[str, Any]) -> tuple[str, ...]:
    cells = []
    for variant in measured["variants"]:
        if "error" in variant:
            cells.append(variant["error"].strip().splitlines()[-1])
        else:
            cells.append(f"{text(variant['median'])} ({times(variant['faster'])})")
    depth = default_depth(measured["size"], measured["size"])
    return (*(str(measured[axis]) for axis in ("classes", "ipc", "size")), str(depth), *cells)


def _title(options: Options) -> str:
    work, amounts = options.amounts.scaling_work, options.amounts
    return (
        f"f. Iteration time: random images, l 2, B {work.batch_real}, K {work.train_steps} of batch "
        f"{work.queue_batch} on 2 nets, width {amounts.width}"
    )
