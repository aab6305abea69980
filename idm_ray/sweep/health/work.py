"""What the sweep would compute: its search, its data, and how many trials there is room for."""

from collections.abc import Iterator

from idm_ray.data.draft import check_room
from idm_ray.data.remote import look_behind
from idm_ray.data.store import check_cache
from idm_ray.errors import UserError
from idm_ray.nets.cpu import keeping_nothing
from idm_ray.runtime.files import check_root, default_cache
from idm_ray.runtime.words import plural
from idm_ray.settings.locations import is_uri
from idm_ray.sweep.fit import check_points, check_resources
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.preflight import check_search
from idm_ray.sweep.room import make_room, resources_here, this_host
from idm_ray.sweep.sharing.plan import plan_sharing


def search(case: Case) -> Iterator[Finding]:
    """Whether it can be searched."""
    check_search(case.config)
    sweep = case.config.sweep
    yield ok(
        "search",
        f"{plural(sweep.trials, 'trial')} over {plural(len(case.config.search), 'setting')}, {sweep.sampler}",
    )


def resources(case: Case) -> Iterator[Finding]:
    """Whether this machine has what a trial asks for."""
    check_resources(case.config)
    sweep = case.config.sweep
    where = "" if sweep.address is None else ", on the cluster"
    yield ok(
        "resources",
        f"a trial takes {sweep.cpus_per_trial:g} CPUs and {_share(sweep.gpus_per_trial)} GPUs{where}, on device "
        f"{case.config.trial_compute.device}",
    )


def data(case: Case) -> Iterator[Finding]:
    """Whether they are there and fit the settings; nothing is downloaded, copied or built."""
    dataset, cache = case.config.dataset, default_cache()
    check_root(dataset.root)
    if is_uri(dataset.root):
        yield ok("data", f"{dataset.root}: {look_behind(dataset.root, cache)}")
        check_cache(cache)
        return
    outline, ahead = case.look_at_data()
    check_points(case.config, outline)
    yield ok("data", f"{dataset.name}, {outline.text}" + (f" ({ahead.text})" if ahead.text else ""))
    check_room(ahead.store_bytes, cache)
    yield from (note("data", caveat) for caveat in outline.caveats)


def trials(case: Case) -> Iterator[Finding]:
    """How many there is memory and room for; a forecast, which takes a second or two."""
    found = case.known_data
    if found is None or case.config.sweep.address is not None:
        return  # told elsewhere: by the data, or by the nodes
    outline, _ = found
    try:
        check_resources(case.config)
        check_points(case.config, outline)
    except UserError:
        return
    with keeping_nothing():
        room = make_room(case.config, outline, [this_host()], always=True)
    if room.text:
        yield ok("trials", room.text)
    plan = plan_sharing(room.config, outline, resources_here(), room.trials)
    yield ok("trials", f"{plan.concurrent} at a time")


def _share(share: float | str) -> str:
    return share if isinstance(share, str) else f"{share:g}"
