"""How many trials there is memory for, and the chunk with which they keep to it."""

from dataclasses import dataclass, replace

import torch

from idm_ray.data import Outline
from idm_ray.errors import UserError
from idm_ray.evaluation.forecast import Forecast, fit, gigabytes, images_at_once, plenty, refused
from idm_ray.evaluation.transfer import nets_named
from idm_ray.runtime.compute import Compute, choose_compute, resolve
from idm_ray.runtime.cores import counted_cores
from idm_ray.runtime.memory import FREE_SHARE, card_bytes, free_bytes, pixel_room
from idm_ray.runtime.words import plural
from idm_ray.settings.layers import METHOD
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import capacity
from idm_ray.sweep.search import space

MEMORY_KEYS = (
    METHOD,
    "condense.preset",
    "condense.ipc",
    "condense.partition",
    "condense.batch_real",
    "condense.easiest",
    "condense.loss",
    "condense.optimizer",
    "condense.pixels",
    "loss.frequencies",
    "kernel.name",
    "kernel.depth",
    "kernel.nets",
    "net.",
    "condense.labels",
    "teacher.net",
    "unroll.",
    "trajectory.",
    "gradient.most_parts",
    "queue.batch",
    "queue.max_nets",
    "evaluate.preset",
    "evaluate.optimizer",
    "evaluate.relabel",
    "evaluate.batch",
    "evaluate.expand",
    "compute.precision",
)
"""Settings that memory depends on by much."""
MOST_ON_A_CARD = 8


@dataclass(frozen=True)
class Host:
    """A machine that trials run on.

    Attributes:
        cpus, gpus: that Ray counts.
        memory: bytes for trials.
    """

    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Room:
    """What memory allows.

    Attributes:
        config: the sweep's, its precision named, its chunk and share of a GPU in numbers.
        trials: processes at a time, real sides included; None: memory does not bound them.
        text: a line for people; empty where there is more than enough.
        peak: bytes of the largest trial; 0 where there is more than enough.
    """

    config: Config
    trials: int | None
    text: str
    peak: int = 0


def this_host() -> Host:
    """This machine, as it is now."""
    return Host(float(counted_cores()), float(torch.cuda.device_count()), FREE_SHARE * free_bytes())


def resources_here() -> dict[str, float]:
    """What Ray counts on this machine."""
    host = this_host()
    return {"CPU": host.cpus, "GPU": host.gpus}


def make_room(config: Config, outline: Outline, hosts: list[Host], always: bool = False) -> Room:
    """Decide what is `auto`: the precision by this machine, chunk and share of a GPU by the points that take most.

    Args:
        config: of the sweep.
        outline: of the data.
        hosts: that trials may run on.
        always: forecast also where there is more than enough.

    Raises:
        UserError: not even one trial fits, with the smallest chunk.
    """
    precision = resolve(config.trial_compute).precision
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"precision": precision})})
    if config.trial_compute.device == "cpu":
        return _on_processors(config, outline, hosts, always)
    if not torch.cuda.is_available():
        if config.sweep.gpus_per_trial == "auto":
            raise UserError(
                "sweep.gpus_per_trial auto measures the GPU here, and there is none; set a share, such as 0.25, "
                "or 0 for the CPU"
            )
        return Room(config, None, "the memory of GPUs elsewhere is not known here")
    return _on_cards(config, outline)


def _on_processors(config: Config, outline: Outline, hosts: list[Host], always: bool) -> Room:
    points, share = _largest(config, outline), config.sweep.gpu_share
    slots = [_slots(config, host) for host in hosts]
    rooms = [host.memory / max(1, count) for host, count in zip(hosts, slots, strict=True)]
    if not always and all(plenty(point, outline, room) for point in points for room in rooms):
        compute = _compute_of(config)
        return Room(_with(config, compute.most or compute.with_gradient(*outline.shape[1:]), share), None, "")
    fitting = []
    for host, count in zip(hosts, slots, strict=True):
        for trials in range(count, 0, -1):
            found = _fit(points, outline, host.memory / trials)
            if found.peak <= host.memory / trials:
                fitting.append((trials, found))
                break
    if not fitting:
        most = max((host.memory for host in hosts), default=0)
        raise refused(_fit(points, outline, 0), most, "free here" if len(hosts) == 1 else "on a node")
    smallest = min((found for _, found in fitting), key=lambda found: found.chunk)
    trials = sum(count for count, _ in fitting)
    text = f"memory: a trial takes {smallest.text}; room for {plural(trials, 'trial')} at a time"
    return Room(_with(config, smallest.chunk, share), trials, text, int(smallest.peak))


def _slots(config: Config, host: Host) -> int:
    """Processes that a host's processors hold, as far as there is use for them."""
    fits = max(1, capacity(config, {"CPU": host.cpus, "GPU": host.gpus}))
    return min(fits, config.sweep.max_concurrent or fits, config.sweep.trials + 1)


def _on_cards(config: Config, outline: Outline) -> Room:
    points, share = _largest(config, outline), config.sweep.gpu_share
    images = sum(outline.train) + sum(outline.validation) + sum(outline.test)
    size = images * outline.shape[0] * outline.shape[1] * outline.shape[2]

    def fitted(of_card: float) -> Forecast:
        pixels = min(size, pixel_room(torch.device("cuda"), of_card))
        return _fit(points, outline, card_bytes(of_card), pixels)

    if config.sweep.gpus_per_trial == "auto":
        alone = fitted(1.0)
        shares = (1 / count for count in range(MOST_ON_A_CARD, 1, -1))
        share = next((each for each in shares if _serves(fitted(each), alone, card_bytes(each))), 1.0)
    found = fitted(share)
    if found.peak > card_bytes(share):
        raise refused(found, card_bytes(share), "in a trial's share of the GPU")
    text = f"memory: a trial takes {found.text}, of {gigabytes(card_bytes(share))} in its share of a GPU ({share:g})"
    return Room(_with(config, found.chunk, share), None, text)


def _serves(found: Forecast, alone: Forecast, room: float) -> bool:
    """Whether a trial fits into a share with the chunk that it would have on a card of its own."""
    return found.peak <= room and found.chunk == alone.chunk


def _with(config: Config, chunk: int, share: float) -> Config:
    compute = config.compute.model_copy(update={"chunk": chunk})
    sweep = config.sweep.model_copy(update={"gpus_per_trial": float(share)})
    return config.model_copy(update={"compute": compute, "sweep": sweep})


def _largest(config: Config, outline: Outline) -> list[Config]:
    """Of the points of a search that are of one kind, such as net, precision and method, the one of most pixels."""
    largest: dict[str, Config] = {}
    for point in space.corners(config, MEMORY_KEYS):
        own = point.condense
        of_nets = (
            point.net,
            point.compute,
            point.teacher.net,
            point.kernel.name,
            point.unroll,
            point.trajectory,
        )
        kind = repr(
            (of_nets, own.method, own.loss, own.optimizer, own.pixels, own.labels, point.evaluate.relabel)
        )
        if kind not in largest or _pixels(point, outline) > _pixels(largest[kind], outline):
            largest[kind] = point
    return [each for point in largest.values() for each in (point, *_on_other_nets(point))]


def _on_other_nets(point: Config) -> list[Config]:
    """What evaluating a point's set on other nets takes, where that is a goal: as a method that only chooses would."""
    if "cross_accuracy" not in point.sweep.objectives:
        return []
    chosen = point.condense.model_copy(update={"method": "random"})
    nets = nets_named(point.evaluate.cross_nets, point)
    return [point.model_copy(update={"net": net, "condense": chosen}) for net in nets]


def _pixels(point: Config, outline: Outline) -> tuple[float, ...]:
    batches = point.queue.batch, point.evaluate.batch
    most = max(images_at_once(point, outline), *batches)
    return most, *batches, point.queue.max_nets, point.loss.frequencies, point.kernel.depth, point.kernel.nets


def _fit(points: list[Config], outline: Outline, room: float, pixels: float = 0.0) -> Forecast:
    """Of the point that takes most, with the chunk that all of them fit with."""
    found = [fit(point, outline, _compute_of(point), room, pixels) for point in points]
    return replace(max(found, key=lambda each: each.peak), chunk=min(each.chunk for each in found))


def _compute_of(config: Config) -> Compute:
    return choose_compute(config.trial_compute)
