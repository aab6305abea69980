"""How many real sides a sweep needs, whether sharing them saves time, and how many processes compute what."""

import json
from dataclasses import dataclass

from idm_ray.condensation import has_real_side, real_settings
from idm_ray.data import Outline
from idm_ray.errors import UserError
from idm_ray.runtime.words import plural
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.search import space
from idm_ray.sweep.sharing.spread import WORTH, Slots, Work, idle_shards, spread, work_of
from idm_ray.sweep.speed import Speed

REAL_KEYS = ("seed", "dataset.", "net.", "queue.", "compute.", "condense.batch_real", "condense.easiest",
             "condense.augment", "condense.method", "condense.preset", "condense.iterations",
             "condense.loss", "loss.frequencies", "loss.power", "loss.logits")  # fmt: skip
MOST_POINTS = 2000


@dataclass(frozen=True)
class Plan:
    """Whether real sides are shared, and how many processes compute what.

    Attributes:
        shared: they are.
        sides: real sides that the trials need; None when it is not bounded.
        concurrent: trials at a time.
        spare: one more trial may be asked for, since there is no room to start it: it waits for a process to become
            free, which is then used again.
        lanes: trials' worth of processors that compute at a time; trials may outnumber it.
        text: a line for people.
        workers: of each real side.
        shards: workers of each trial, itself included.
        faster: times that a trial's own work takes less by these.
    """

    shared: bool
    sides: int | None
    concurrent: int
    spare: bool
    lanes: float
    text: str
    workers: int = 1
    shards: int = 1
    faster: float = 1.0


def plan_sharing(
    config: Config,
    outline: Outline,
    resources: dict[str, float],
    most: int | None = None,
    speed: Speed | None = None,
) -> Plan:
    """Decide `sweep.share`, `sweep.real_workers` and `sweep.shards` where they are auto.

    Args:
        config: of the sweep.
        outline: of the data; its shape and classes are read.
        resources: of Ray, "CPU" and "GPU".
        most: trials and real sides that there is memory for; None: enough.
        speed: of a machine that does the work; None: see `work_of`.

    Raises:
        UserError: not even one trial fits.
    """
    work, slots, sides = work_of(config, outline, speed), Slots(config, resources, most), count_sides(config)
    named = config.sweep.shards
    shards = 1 if named == "auto" else min(work.most_shards, named)
    alone = slots.trials(0, shards)
    shared = _why_not(config, sides) or _shared(config, slots, work, sides or 0, alone, shards)
    if isinstance(shared, Plan):
        return shared
    if named == "auto":
        shards = idle_shards(slots, work, alone)
    faster = (work.real + work.own(1)) / (work.real + work.own(shards)) if work.own(1) else 1.0
    text = f"{_needs(config, sides)}, not shared: {shared}" + _in_shards(config, shards)
    spare, lanes = slots.full(alone, 0, shards), _lanes(config, alone, resources)
    return Plan(False, sides, alone, spare, lanes, text, 1, shards, faster)


def _why_not(config: Config, sides: int | None) -> str:
    """Why trials cannot have real sides in common, whatever the machine; empty where they can."""
    sweep = config.sweep
    if sweep.share == "off":
        return "sweep.share is off"
    if lacking := [method for method in config.methods if not has_real_side(method)]:
        return f"no trial could share one with {', '.join(lacking)}"
    if sides is None:
        return "hardly two trials would have the same; short choice lists for queue.* let them"
    return "hardly two trials would have the same" if sides >= sweep.trials else ""


def _shared(config: Config, slots: Slots, work: Work, sides: int, alone: int, shards: int) -> Plan | str:
    """The plan with shared real sides; or why it does not pay."""
    sweep = config.sweep
    named = 1 if sweep.real_workers == "auto" else sweep.real_workers
    try:
        together = slots.trials(sides * named, shards)
    except UserError:
        if named > 1:
            raise UserError(
                f"sweep.real_workers is {named}, and {in_words(sides)} of so many do not fit beside a trial; lower it, "
                "or set it to auto"
            ) from None
        return "they do not fit beside trials here, so each trial computes its own"
    workers, shards = spread(config, slots, work, sides, together, named, shards)
    left = {
        "CPU": slots.resources.get("CPU", 0) - sides * workers * real_threads(config),
        "GPU": slots.resources.get("GPU", 0) - sides * workers * sweep.gpu_share,
    }
    lanes = _lanes(config, together, left)
    ratio = _expected_ratio(config, work, _lanes(config, alone, slots.resources), lanes, together)
    if ratio > WORTH:
        return "with these resources it would save nothing"
    text = f"{_needs(config, sides)}, shared: saves about {100 * (1 - ratio):.0f} % of their time"
    text += f"; each by {workers} workers" if workers > 1 else ""
    faster = work.own(1) / work.own(shards) if work.own(1) else 1.0
    spare = sides == 1 and slots.full(together, sides * workers, shards)
    return Plan(
        True, sides, together, spare, lanes, text + _in_shards(config, shards), workers, shards, faster
    )


def _needs(config: Config, sides: int | None) -> str:
    return f"{in_words(sides)} for {config.sweep.trials} trials"


def _in_shards(config: Config, shards: int) -> str:
    """How many there are, and why fewer than asked for."""
    asked = config.sweep.shards
    text = f"; S of each trial in {shards} shards" if shards > 1 else ""
    if asked == "auto" or asked == shards:
        return text
    lacking = [method for method in config.methods if not has_real_side(method)]
    why = (
        f"{', '.join(lacking)} has none"
        if lacking
        else "there are no more groups of classes, nor nets of a look"
    )
    return f"{text or '; S of each trial whole'} (sweep.shards {asked}: {why})"


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


def _expected_ratio(config: Config, work: Work, alone: float, lanes: float, together: int) -> float:
    """Expected time of all trials with sharing, over that without, by arithmetic alone."""
    real, own = work.real, work.own(1)
    trials = config.sweep.trials
    if not real + own:
        return 1.0
    first = max(real, together * own / lanes)
    shared = first + max(0, trials - together) * own / lanes
    return shared / (trials * (real + own) / alone)
