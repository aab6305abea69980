"""Whether a node does what the driver's machine does, and why it does not."""

from idm_ray.runtime.words import size_text
from idm_ray.settings.sections import Config
from idm_ray.sweep.nodes.probe import PACKAGES, SAME, Machine

SKEW_SECONDS = 300.0
"""By which a clock may differ: beyond, object stores refuse signatures."""
SPARE_BYTES = 256 << 20
"""For a trial's checkpoint and condensed set, beside the image store."""


def unfit(here: Machine, there: Machine, config: Config, store_bytes: int, waited: float) -> str:
    """Why no trial can run on a node, in words; empty where one can.

    Args:
        here: the driver's machine.
        there: the node.
        config: of the sweep.
        store_bytes: that a node needs which lacks the images.
        waited: seconds between the question and the answer, by which the clock is known.
    """
    if there.python.rpartition(".")[0] != here.python.rpartition(".")[0]:
        return f"it has Python {there.python}, and this machine {here.python}; install the same there"
    for name in PACKAGES:
        theirs, own = there.versions.get(name, ""), here.versions.get(name, "")
        if not theirs or (name in SAME and theirs != own):
            found = f"{name} {theirs}" if theirs else f"no {name}"
            return f"it has {found}, and this machine {own}; run `pip install {name}=={own}` there"
    if there.problem:
        return f"idm_ray cannot be loaded there: {there.problem}"
    if there.code != here.code:
        return "it has another version of idm_ray, which hides the one from here; uninstall it there"
    if own_operations_count(config) and there.own_operations != here.own_operations:
        which = "it lacks" if here.own_operations else "only it has"
        return f"{which} a C++ compiler (g++), so its numbers differ; install one, or set compute.compile=off"
    needed = SPARE_BYTES + (0 if there.stored else store_bytes)
    if there.free < needed:
        return (
            f"its cache folder has {size_text(there.free)} left and needs {size_text(needed)}; make room, or set "
            "IDM_RAY_CACHE there"
        )
    if abs(there.clock - here.clock) > SKEW_SECONDS + waited:
        return f"its clock is {there.clock - here.clock:+.0f} s off; set it"
    return ""


def own_operations_count(config: Config) -> bool:
    """Whether trials use our own operations for the CPU where they are there."""
    return config.trial_compute.device == "cpu" and config.compute.compile == "auto"
