"""How many real sides a sweep needs, and whether sharing them saves time."""

import json
from dataclasses import dataclass

from idm_ray.condensation import has_real_side, real_flops, real_settings, synthetic_flops
from idm_ray.data import Outline
from idm_ray.errors import UserError
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.runtime.words import plural
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import capacity, concurrency, real_threads
from idm_ray.sweep.search import space

REAL_KEYS = ("seed", "dataset.", "net.", "queue.", "compute.", "condense.batch_real", "condense.easiest",
             "condense.augment", "condense.method", "condense.preset", "condense.iterations")  # fmt: skip
MOST_POINTS = 2000
MOST_WORKERS = 16
"""Of a real side: more find no net to work on, see docs/sharing.md."""
WORTH = 0.95
"""Sharing must be expected to take less than this share of the time without it."""


@dataclass(frozen=True)
class Plan:
    """Whether real sides are shared.

    Attributes:
        shared: they are.
        sides: real sides that the trials need; None when it is not bounded.
        concurrent: trials at a time.
        spare: one more trial may be asked for, since there is no room to start it: it waits for a process to become
            free, which is then used again.
        workers: of each real side.
        lanes: trials' worth of processors that compute at a time; trials may outnumber it.
        text: a line for people.
    """

    shared: bool
    sides: int | None
    concurrent: int
    spare: bool
    lanes: float
    text: str
    workers: int = 1


def plan_sharing(
    config: Config, outline: Outline, resources: dict[str, float], most: int | None = None
) -> Plan:
    """Decide `sweep.share: auto`.

    Args:
        config: of the sweep.
        outline: of the data; its shape and classes are read.
        resources: of Ray, "CPU" and "GPU".
        most: trials and real sides that there is memory for; None: enough.

    Raises:
        UserError: not even one trial fits.
    """
    sweep = config.sweep
    alone = concurrency(config, resources, most=most)
    sides = count_sides(config)
    needs = in_words(sides)
    prefix = f"{needs} for {sweep.trials} trials"

    def unshared(why: str) -> Plan:
        spare = 1 < alone == capacity(config, resources)
        lanes = _lanes(config, alone, resources)
        return Plan(False, sides, alone, spare, lanes, f"{prefix}, not shared: {why}")

    if sweep.share == "off":
        return unshared("sweep.share is off")
    if lacking := [method for method in config.methods if not has_real_side(method)]:
        return unshared(f"no trial could share one with {', '.join(lacking)}")
    if sides is None:
        return unshared("hardly two trials would have the same; short choice lists for queue.* let them")
    if sides >= sweep.trials:
        return unshared("hardly two trials would have the same")
    named = 1 if sweep.real_workers == "auto" else sweep.real_workers
    try:
        together = concurrency(config, resources, sides * named, most)
    except UserError:
        if named > 1:
            raise UserError(
                f"sweep.real_workers is {named}, and {in_words(sides)} of so many do not fit beside a trial; lower it, "
                "or set it to auto"
            ) from None
        return unshared("they do not fit beside trials here, so each trial computes its own")
    workers = named if sweep.real_workers != "auto" else _idle(config, resources, sides, together, most)
    left = {
        "CPU": resources.get("CPU", 0) - sides * workers * real_threads(config),
        "GPU": resources.get("GPU", 0) - sides * workers * sweep.gpu_share,
    }
    lanes = _lanes(config, together, left)
    ratio = _expected_ratio(config, outline, _lanes(config, alone, resources), lanes, together)
    if ratio > WORTH:
        return unshared("with these resources it would save nothing")
    return Plan(
        True,
        sides,
        together,
        sides == 1 and 1 < together == capacity(config, resources, sides * workers),
        lanes,
        f"{prefix}, shared: saves about {100 * (1 - ratio):.0f} % of their time"
        + (f"; each by {workers} workers" if workers > 1 else ""),
        workers,
    )


def _idle(config: Config, resources: dict[str, float], sides: int, trials: int, most: int | None) -> int:
    """Workers of each real side that would have nothing else to do beside so many trials; at least 1."""
    workers = 1
    while workers < min(MOST_WORKERS, config.queue.max_nets):
        taken = sides * (workers + 1)
        room = capacity(config, resources, taken)
        if min(room, room if most is None else most - taken) < trials:
            break
        workers += 1
    return workers


def in_words(sides: int | None) -> str:
    """``2 real sides``."""
    return "any number of real sides" if sides is None else plural(sides, "real side")


def count_sides(config: Config) -> int | None:
    """Real sides of all points of the search together, at most; None when a setting of theirs is continuous."""
    search = {key: domain for key, domain in config.search.items() if key.startswith(REAL_KEYS)}
    size = space.size(search)
    if size is None or size > MOST_POINTS:
        return None
    configs = (with_point(config, point) for point in space.points(search))
    # Iterations decide, through the amount of work, whether a real side is compiled.
    return len({json.dumps([real_settings(each), each.condense.iterations]) for each in configs})


def _lanes(config: Config, trials: int, resources: dict[str, float]) -> float:
    """Trials that compute at full speed at a time: processors bound it, also where trials hold fractions."""
    if config.sweep.gpu_share:
        return min(trials, resources["GPU"])
    return min(trials, resources["CPU"] / real_threads(config))


def _expected_ratio(config: Config, outline: Outline, alone: float, lanes: float, together: int) -> float:
    """Expected time of all trials with sharing, over that without, by arithmetic alone."""
    shape = outline.shape, outline.num_classes
    real = real_flops(config, *shape)
    own = synthetic_flops(config, *shape) + looks_flops(config, *shape)
    trials = config.sweep.trials
    if not real + own:
        return 1.0
    first = max(real, together * own / lanes)
    shared = first + max(0, trials - together) * own / lanes
    return shared / (trials * (real + own) / alone)
