import importlib

import pytest

from idm_ray.runtime.progress import silent
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.examine import EXAMINATIONS


@pytest.fixture
def found(small_config, tmp_path):
    """What an examination finds for a sweep of digits with further settings: verdict, text and mend of each."""

    def examine(name, *settings):
        config = small_config("dataset.name=digits", f"sweep.output_dir={tmp_path / 'runs'}", *settings)
        module, _, function = EXAMINATIONS[name].partition(":")
        look = getattr(importlib.import_module(f"idm_ray.sweep.health.{module}"), function)
        return [(each.verdict, each.text, each.mend) for each in look(Case(config, silent))]

    return examine
