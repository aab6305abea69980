import json
import re

import pytest
import ray
import torch
import yaml
from safetensors import SafetensorError

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.errors import UserError
from idm_ray.runtime.memory import CLEAR, peak_bytes
from idm_ray.sweep import checkpoints
from idm_ray.sweep.disk import NoRoom
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.trial import CondensationTrial, Diverged, NoMemory, Report, TrialRun, explain


@pytest.fixture(scope="module", autouse=True)
def ray_ends():
    """A trial that looks for its pulse starts Ray where there is none."""
    yield
    ray.shutdown()


def reports(run):
    found = [run.advance()]
    while found[-1].state == "RUNNING":
        found.append(run.advance())
    return found


def figures(found):
    return [(report.iteration, report.val_accuracy, report.state) for report in found]


def test_a_trial_reports_at_set_iterations_and_at_its_end(tiny_config, tmp_path):
    found = reports(TrialRun(tiny_config("condense.iterations=5"), tmp_path))
    assert [(report.iteration, report.state) for report in found] == [
        (2, "RUNNING"),
        (4, "RUNNING"),
        (5, "COMPLETE"),
    ]
    assert [row[0] for report in found for row in report.history] == [1, 2, 3, 4, 5]


def test_without_iterations_the_start_is_evaluated(tiny_config, tmp_path):
    assert figures(reports(TrialRun(tiny_config("condense.iterations=0"), tmp_path)))[0][0] == 0


def test_what_a_trial_leaves_can_be_opened(tiny_config, tmp_path):
    reports(TrialRun(tiny_config(), tmp_path))
    assert load_condensed(tmp_path / "condensed").iteration == 6
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == [
        "000002.png",
        "000004.png",
        "000006.png",
    ]


@pytest.mark.parametrize("heard", [1, 2])
def test_a_trial_goes_on_from_its_checkpoint_and_repeats_its_last_report(tiny_config, tmp_path, heard):
    whole = reports(TrialRun(tiny_config(), tmp_path / "whole"))
    first = TrialRun(tiny_config(), tmp_path / "stopped")
    for _ in range(heard):
        first.advance()
    rest = reports(TrialRun(tiny_config(), tmp_path / "stopped"))
    assert figures(rest) == figures(whole)[heard - 1 :]
    for folder in ("whole", "stopped"):
        assert torch.equal(
            load_condensed(tmp_path / folder / "condensed").images,
            load_condensed(tmp_path / "whole" / "condensed").images,
        )


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def believed(path):
    """Another accuracy in its note, and nothing else."""
    content = path.read_bytes()
    changed, count = re.subn(rb'(val_accuracy\\": \d)', rb"\g<1>9", content[:-1])
    assert count == 1
    length = int.from_bytes(content[:8], "little") + 1
    path.write_bytes(length.to_bytes(8, "little") + changed[8:] + content[-1:])


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, believed])
@pytest.mark.parametrize("count", [1, 2])
def test_damaged_checkpoints_are_set_aside_and_not_a_bit_is_lost(tiny_config, tmp_path, damage, count):
    whole = reports(TrialRun(tiny_config(), tmp_path / "whole"))
    first = TrialRun(tiny_config(), tmp_path / "stopped")
    first.advance()
    first.advance()
    kept = sorted((tmp_path / "stopped" / "checkpoint").iterdir())
    assert [path.name for path in kept] == ["00000002.safetensors", "00000004.safetensors"]
    for path in kept[-count:]:
        damage(path)
    rest = reports(TrialRun(tiny_config(), tmp_path / "stopped"))
    assert figures(rest) == figures(whole)
    assert len(rest[0].troubles) == count
    assert all("a checkpoint was damaged and is set aside as" in trouble for trouble in rest[0].troubles)
    assert not rest[1].troubles
    assert torch.equal(
        load_condensed(tmp_path / "stopped" / "condensed").images,
        load_condensed(tmp_path / "whole" / "condensed").images,
    )
    assert sorted(path.name for path in (tmp_path / "stopped" / "checkpoint").iterdir()) == sorted(
        ["00000004.safetensors", "00000006.safetensors", *(f"{path.name}.damaged" for path in kept[-count:])]
    )


def test_a_checkpoint_of_other_settings_is_refused(tiny_config, tmp_path):
    TrialRun(tiny_config(), tmp_path).advance()
    with pytest.raises(UserError, match="other settings"):
        TrialRun(tiny_config("condense.lr=0.2"), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_trial(tiny_config, tmp_path):
    with pytest.raises(Diverged, match="iteration"):
        reports(TrialRun(tiny_config("condense.lr=1e30"), tmp_path))


def test_whatever_a_trial_raises_becomes_a_report(tiny_config, tmp_path):
    trial = CondensationTrial.__new__(CondensationTrial)
    raw = tiny_config("condense.lr=1e30").to_raw()
    trial.setup(
        {
            "number": 0,
            "keeping": Keeping(str(tmp_path)),
            "config": json.dumps(raw),
            "real": None,
            "pulse": "gone",
            "shards": 1,
            "memory": 0,
        }
    )
    result = trial.step()
    while not result["done"]:
        result = trial.step()
    assert result["state"] == "FAIL"
    assert "iteration" in result["reason"]
    assert "Diverged" in (tmp_path / "trials" / "0000" / "error.txt").read_text()


def test_a_trial_without_room_for_its_files_does_not_fail(tiny_config, tmp_path, monkeypatch):
    def full(*given):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "write_state", full)
    trial = CondensationTrial.__new__(CondensationTrial)
    plain = {"config": json.dumps(tiny_config().to_raw()), "keeping": Keeping(str(tmp_path)), "real": None}
    trial.setup({**plain, "number": 0, "pulse": "gone", "shards": 1, "memory": 0})
    with pytest.raises(NoRoom, match="No space left"):
        trial.step()
    assert not (tmp_path / "trials" / "0000" / "error.txt").exists()


@pytest.mark.skipif(not CLEAR.exists(), reason="a peak is forgotten where Linux lets it")
def test_a_trial_in_a_used_process_does_not_report_the_peak_of_the_last_one(tiny_config, tmp_path):
    trial = CondensationTrial.__new__(CondensationTrial)
    large = torch.ones(2**27)
    before = peak_bytes(large.device)
    del large
    trial.setup(
        {
            "number": 0,
            "keeping": Keeping(str(tmp_path)),
            "config": json.dumps(tiny_config().to_raw()),
            "real": None,
            "pulse": "gone",
            "shards": 1,
            "memory": 0,
        }
    )
    assert trial.step()["peak_bytes"] < before - 2**28


OUT_OF_MEMORY = [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_tells_the_peak_the_forecast_and_what_to_lower(error, tiny_config, tmp_path):
    assert explain(error).startswith("out of memory while it was started; give the trial")
    told = explain(error, TrialRun(tiny_config(), tmp_path))
    assert re.search(
        r"out of memory at .* [MG]B, where .* [MG]B at most \(.*\) were forecast; lower .*", told
    )


@pytest.mark.parametrize(("failures", "peak"), [(1, 0), (2, 0), (2, 2**60)])
def test_a_trial_that_runs_out_of_memory_goes_on_with_half_the_chunk_once(
    failures, peak, tiny_config, tmp_path, monkeypatch
):
    config = tiny_config("compute.chunk=16", "evaluate.every=2")
    undisturbed, left = TrialRun(config, tmp_path / "quiet"), failures
    while undisturbed.advance().state == "RUNNING":
        pass
    trial = CondensationTrial.__new__(CondensationTrial)
    folder = tmp_path / "trial"
    folder.mkdir()
    trial.setup(
        {
            "number": 0,
            "keeping": Keeping(str(folder)),
            "config": json.dumps(config.to_raw()),
            "real": None,
            "pulse": "gone",
            "shards": 1,
            "memory": 0,
        }
    )
    trial.step()
    condense = TrialRun._condense

    def fail(self):
        nonlocal left
        left -= 1
        if left >= 0:
            raise MemoryError
        return condense(self)

    monkeypatch.setattr(TrialRun, "_condense", fail)
    monkeypatch.setattr(TrialRun, "peak", peak)
    if failures == 2 and not peak:  # others have what it lacks
        trial.step()  # the last report again
        with pytest.raises(NoMemory, match="out of memory"):
            trial.step()
        return
    result = trial.step()
    while not result["done"]:
        result = trial.step()
    assert result["state"] == ("COMPLETE" if failures == 1 else "FAIL")
    assert yaml.safe_load((folder / "trials" / "0000" / "trial.yaml").read_text())["compute"]["chunk"] == 8
    if failures == 1:
        assert result["chunk"] == 8
        found, expected = (
            load_condensed(path / "condensed").images
            for path in (folder / "trials" / "0000", tmp_path / "quiet")
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_reason_is_one_line():
    assert explain(ValueError("first\nsecond")) == "ValueError: first second"


def test_a_report_is_plain_data():
    report = Report(2, 50.0, 1.0, "RUNNING", history=[[1, 2.0]])
    assert Report(**json.loads(json.dumps(report.__dict__))) == report
