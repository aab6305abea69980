"""In which order sets stand, and where that says little."""

from collections import defaultdict
from collections.abc import Iterable

from idm_ray.settings.layers import settings_changed
from idm_ray.sweep.registry.kept import KeptSet


def place_in_list(kept: KeptSet) -> tuple[object, ...]:
    """To sort by: data and ipc, then accuracy on validation, the best first; those that have none stand last."""
    validation = kept.validation
    best_first = (0, -validation.mean) if validation else (1, 0.0)
    return (
        kept.data,
        kept.manifest.checksum,
        len(kept.manifest.class_names),
        kept.ipc,
        best_first,
        kept.copies[0].name,
    )


def incomparable(found: Iterable[KeptSet]) -> list[str]:
    """Where sets that stand in one order were validated in several ways, in words."""
    groups: dict[tuple[object, ...], list[KeptSet]] = defaultdict(list)
    for kept in found:
        if kept.validation is not None:
            groups[kept.group].append(kept)
    told = []
    for (data, _, _, ipc), members in groups.items():
        first, *others = (kept.validation.protocol for kept in members if kept.validation)
        keys = sorted({key for other in others if other != first for key in settings_changed(first, other)})
        if keys:
            told.append(
                f"{data}, ipc {ipc}: validated in different ways ({', '.join(keys)}), which the order does not know; "
                "idm-ray evaluate A --against B tries two alike"
            )
    return told
