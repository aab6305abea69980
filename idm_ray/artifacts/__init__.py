"""What is kept on disk and outlives a run.

What is named here is imported when it is first used, so that reading a manifest loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idm_ray.artifacts.condensed import CondensedSet, condensed_set, load_condensed, save_condensed
    from idm_ray.artifacts.dataset import CondensedDataset
    from idm_ray.artifacts.export import EXPORTS, export_set

__all__ = [
    "EXPORTS",
    "CondensedDataset",
    "CondensedSet",
    "condensed_set",
    "export_set",
    "load_condensed",
    "save_condensed",
]

_WHERE = {
    "EXPORTS": "export",
    "CondensedDataset": "dataset",
    "CondensedSet": "condensed",
    "condensed_set": "condensed",
    "export_set": "export",
    "load_condensed": "condensed",
    "save_condensed": "condensed",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'idm_ray.artifacts' has no attribute {name!r}")
    return getattr(importlib.import_module(f"idm_ray.artifacts.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
