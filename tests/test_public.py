"""What `import idm_ray` gives, and what it costs."""

import subprocess
import sys

import pytest

import idm_ray
from idm_ray.condensation import condense
from idm_ray.errors import UserError
from idm_ray.evaluation.prepare import prepare

TINY = ("net.width=4", "net.depth=1", "condense.iterations=3", "condense.batch_real=8", "queue.batch=8",
        "evaluate.epochs=1", "evaluate.repeats=1", "compute.precision=fp32")  # fmt: skip


def test_importing_it_loads_nothing_else():
    code = "import sys; before = set(sys.modules); import idm_ray; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names == {"idm_ray"}


@pytest.mark.parametrize("first", ["import idm_ray.condensation, idm_ray.evaluation", "pass"])
def test_functions_are_functions_whatever_was_imported_before(first):
    code = f"{first}\nimport idm_ray\nassert callable(idm_ray.condense) and callable(idm_ray.evaluate)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_everything_that_is_named_is_there():
    assert all(getattr(idm_ray, name) is not None for name in idm_ray.__all__)
    assert set(idm_ray.__all__) <= set(dir(idm_ray))
    with pytest.raises(AttributeError, match="no attribute 'condence'"):
        idm_ray.condence  # noqa: B018


def test_settings_alone_make_a_set_that_can_be_saved_loaded_and_evaluated(tmp_path):
    config = idm_ray.load_config("digits", *TINY)
    run = idm_ray.condense(config)
    assert [record.iteration for record in run] == [1, 2, 3]
    bare = condense(config, *prepare(config))
    list(bare)
    assert bare.images.equal(run.images)
    run.save(tmp_path / "condensed")
    condensed = idm_ray.load_condensed(tmp_path / "condensed")
    assert condensed.images.equal(run.images)
    assert len(idm_ray.CondensedDataset(tmp_path / "condensed")) == 40
    found = idm_ray.evaluate(tmp_path / "condensed", {"evaluate": {"repeats": 2}})
    assert len(found.runs) == 2
    assert idm_ray.evaluate(condensed).runs == found.runs[:1]


def test_settings_may_be_a_mapping():
    config = idm_ray.build_config({"condense": {"ipc": 3}}, {"seed": 5})
    assert (config.condense.ipc, config.seed) == (3, 5)
    with pytest.raises(
        UserError, match=r"settings: condense\.lrr is not a setting; did you mean condense\.lr"
    ):
        idm_ray.build_config({"condense": {"lrr": 3}})
