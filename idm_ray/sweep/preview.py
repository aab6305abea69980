"""What a sweep would be: its data, first points, resources and real sides; nothing is started."""

from collections.abc import Callable, Iterator
from pathlib import Path

from idm_ray.data import Outline, outline_data
from idm_ray.errors import UserError
from idm_ray.evaluation.pace import pace
from idm_ray.runtime.compute import choose_compute
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.calibrate import calibrate
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.final import in_the_end
from idm_ray.sweep.fit import check_points, check_resources
from idm_ray.sweep.reuse.warm import taken_from_earlier
from idm_ray.sweep.room import make_room, resources_here, this_host
from idm_ray.sweep.search import space
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.search.taken import Taken
from idm_ray.sweep.sharing.plan import count_sides, in_words, plan_sharing
from idm_ray.sweep.tracking.store import reach
from idm_ray.sweep.tracking.ui import is_missing, tracking_uri
from idm_ray.sweep.view.live import describe_point

SHOWN_POINTS = 8


def preview(config: Config, folder: Path, progress: Progress) -> Iterator[str]:
    """Lines for people.

    Args:
        config: of the sweep.
        folder: it would go to.
        progress: told about reading the data.

    Raises:
        UserError: data that no sweep would start with. What this machine lacks is only told: the sweep may be for
            another one.
    """
    outline, ahead = outline_data(config.dataset, progress=progress)
    check_points(config, outline)
    yield f"sweep {folder.name} in {folder}; nothing is started."
    yield f"data: {config.dataset.name}, {outline.text}" + (f" ({ahead.text})" if ahead.text else "")
    if ahead.store_bytes:
        yield "note: only some of the images were opened; the sweep opens all, and names those that are broken"
    yield from (f"note: {caveat}" for caveat in outline.caveats)
    size = space.size(config.search)
    yield f"space: {'continuous' if size is None else f'{size} points'}, {config.sweep.sampler}; first points:"
    taken = taken_from_earlier(config, ahead.store.checksum) if ahead.store else Taken()
    for number, point in enumerate(_first_points(config, taken)):
        yield f"  {number:04d} {describe_point(point) or '(nothing is searched)'}"
    yield from taken.lines
    if config.sweep.warm_start and not ahead.store:
        yield "what is taken from earlier sweeps is known when the images are there"
    yield in_the_end(config, outline)
    yield from _resources(config, outline)


def calibrated(config: Config, say: Callable[[str], None]) -> None:
    """Compute a little here and tell the time that the sweep will take.

    Raises:
        UserError: images that cannot be read, or a method whose time cannot be predicted.
    """
    try:
        check_resources(config)
    except UserError as error:
        say(f"no prediction: {error}")
        return
    say(calibrate(config, _first_points(config), resources_here(), say).text)


def _resources(config: Config, outline: Outline) -> Iterator[str]:
    sweep, here = config.sweep, resources_here()
    where = (
        f"cluster {sweep.address}" if sweep.address else f"{here['CPU']:g} CPUs, {here['GPU']:g} GPUs here"
    )
    share = sweep.gpus_per_trial if sweep.gpus_per_trial == "auto" else f"{sweep.gpus_per_trial:g}"
    yield f"resources: {sweep.cpus_per_trial:g} CPUs and {share} GPUs a trial, {where}"
    try:
        check_resources(config)
        if sweep.address:
            yield f"{in_words(count_sides(config))} for {sweep.trials} trials"
        else:
            room = make_room(config, outline, [this_host()], always=True)
            if room.text:
                yield room.text
            if not sweep.gpu_share:
                yield from _pace(room.config, outline)
            plan = plan_sharing(room.config, outline, here, room.trials)
            yield f"{plan.concurrent} at a time; work that trials can have in common: {plan.text}"
    except UserError as error:
        yield f"it would not start here: {error}"
    try:
        if not is_missing(uri := tracking_uri(config)):
            reach(uri)
    except UserError as error:
        yield f"it would not start now: {error}"


def _pace(config: Config, outline: Outline) -> Iterator[str]:
    compute = choose_compute(config.trial_compute)
    found = pace(with_point(config, _first_points(config)[0]), outline, compute, real_threads(config))
    if found is not None:
        yield found.text


def _first_points(config: Config, taken: Taken = Taken()) -> list[Point]:  # noqa: B008  (it is frozen)
    study = SweepStudy(config, None)
    study.begin_with(taken)
    points = []
    for _ in range(min(SHOWN_POINTS, config.sweep.trials, config.sweep.startup_trials)):
        asked = study.ask()
        if asked is None:
            break
        points.append(asked.point)
    return points
