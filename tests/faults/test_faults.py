"""One sweep of the harness for faults; `idm-ray bench --faults N` runs any number of all kinds."""

import pytest

from idm_ray.bench import faults

pytestmark = [pytest.mark.ray, pytest.mark.long]
FEWER = "--trials", "3", "condense.iterations=48", "evaluate.epochs=10", "evaluate.val_epochs=10"
"""With a point that follows from what was found."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "SWEEP", (*faults.SWEEP, *FEWER))
        yield faults.quiet_sweep(tmp_path_factory.mktemp("quiet") / "sweep")


def test_a_sweep_to_which_something_happens_finds_what_the_quiet_one_finds(tmp_path, quiet):
    found, seconds = quiet
    kind = "bit of a checkpoint flipped"
    case = faults.suffer(tmp_path / "sweep", kind, 0.6 * seconds, False, {**found, "nothing": None})
    assert case.wrong == ["nothing differs"]
    assert not case.missed
    assert case.codes[1:] == [0]  # ended by the driver's death, and gone on with
