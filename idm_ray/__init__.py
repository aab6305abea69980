"""Condense image datasets with IDM and tune the condensation with Ray Tune, Optuna and MLflow.

    import idm_ray

    config = idm_ray.load_config("digits", "condense.iterations=20")
    run = idm_ray.condense(config)
    for record in run:
        print(record.iteration, float(record.total))
    run.save("condensed")
    print(idm_ray.evaluate("condensed").text)

What is named here is imported when it is first used, so that ``import idm_ray`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idm_ray.artifacts.condensed import CondensedSet, load_condensed, save_condensed
    from idm_ray.artifacts.dataset import CondensedDataset
    from idm_ray.artifacts.export import export_set
    from idm_ray.evaluation.alone import condense_alone as condense
    from idm_ray.evaluation.alone import evaluate_saved as evaluate
    from idm_ray.settings.layers import build_config
    from idm_ray.settings.shipped import load_config

__version__ = "0.1.0"
__all__ = [
    "CondensedDataset",
    "CondensedSet",
    "build_config",
    "condense",
    "evaluate",
    "export_set",
    "load_condensed",
    "load_config",
    "save_condensed",
]

_WHERE = {
    "CondensedDataset": "artifacts.dataset:CondensedDataset",
    "CondensedSet": "artifacts.condensed:CondensedSet",
    "build_config": "settings.layers:build_config",
    "condense": "evaluation.alone:condense_alone",
    "evaluate": "evaluation.alone:evaluate_saved",
    "export_set": "artifacts.export:export_set",
    "load_condensed": "artifacts.condensed:load_condensed",
    "load_config": "settings.shipped:load_config",
    "save_condensed": "artifacts.condensed:save_condensed",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'idm_ray' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(f"idm_ray.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
