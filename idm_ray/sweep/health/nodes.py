"""The machines of a cluster, as a sweep examines them before its first trial."""

from collections.abc import Iterator

from idm_ray.runtime.words import plural, size_text
from idm_ray.settings.locations import is_uri
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.nodes.address import check_cluster
from idm_ray.sweep.nodes.gather import check_hosts, in_words
from idm_ray.sweep.nodes.joining import ray_at
from idm_ray.sweep.nodes.muster import Examined, Muster


def nodes(case: Case) -> Iterator[Finding]:
    """Each that has processors. The cluster is joined for that, which takes ten seconds or more."""
    check_cluster(case.config)
    sweep = case.config.sweep
    if sweep.address is None:
        return
    found = case.known_data
    uri = sweep.output_dir if is_uri(sweep.output_dir) else None
    keeping = Keeping(str(case.output), uri=uri, store=found[1].store if found else None)
    with ray_at(case.config):
        muster = Muster(case.config, keeping, lambda line: None, images=found[1].store_bytes if found else 0)
        muster.wait(case.progress, lambda: "")
        yield from map(_node, muster.examined)
        check_hosts(case.config, muster.hosts)
        yield ok("cluster", f"{sweep.address}: {in_words(muster.hosts)}")


def _node(node: Examined) -> Finding:
    subject = f"node {node.address}"
    if node.why:
        text, _, mend = f"it would be left out: {node.why}".rpartition("; ")
        return note(subject, text or mend, mend if text else "")
    cards = f" and {plural(int(node.host.gpus), 'GPU')}" if node.host.gpus else ""
    text = f"{node.host.cpus:g} CPUs{cards}"
    if (there := node.machine) is not None:
        torch, free = there.versions.get("torch", ""), size_text(there.free)
        text += f", {there.host}, Python {there.python}, torch {torch}, {free} free in its cache folder"
    return ok(subject, text)
