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

from typing import TYPE_CHECKING

from idm_ray.runtime.lazy import lazily

if TYPE_CHECKING:
    from idm_ray.artifacts.condensed import CondensedSet, load_condensed, save_condensed
    from idm_ray.artifacts.dataset import CondensedDataset
    from idm_ray.artifacts.export import export_set
    from idm_ray.evaluation.alone import condense_alone as condense
    from idm_ray.evaluation.alone import evaluate_saved as evaluate
    from idm_ray.settings.layers import build_config
    from idm_ray.settings.shipped import load_config
    from idm_ray.sweep.looking.sweeps import sweeps
    from idm_ray.sweep.registry.sets import sets

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
    "sets",
    "sweeps",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "CondensedDataset": "artifacts.dataset",
        "CondensedSet": "artifacts.condensed",
        "build_config": "settings.layers",
        "condense": "evaluation.alone:condense_alone",
        "evaluate": "evaluation.alone:evaluate_saved",
        "export_set": "artifacts.export",
        "load_condensed": "artifacts.condensed",
        "load_config": "settings.shipped",
        "save_condensed": "artifacts.condensed",
        "sets": "sweep.registry.sets",
        "sweeps": "sweep.looking.sweeps",
    },
)
