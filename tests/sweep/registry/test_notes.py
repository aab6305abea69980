"""What is noted about sets: whole files only, whoever writes, and wherever the folder is."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from idm_ray.errors import UserError
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.notes import NOTES, Notes


def figure(mean=50.0, **changed):
    plain = {
        "set_id": "a" * 64, "place": "one/0", "measure": "accuracy", "split": "test", "net": "convnet", "mean": mean,
        "nets": 1, "epochs": 3, "settings": {"seed": 0}, "data_checksum": "0" * 64, "by": "a test", "at": mean,
    }  # fmt: skip
    return Figure(**{**plain, **changed})


@pytest.fixture(params=["disk", "uri"])
def output(request, tmp_path):
    return tmp_path if request.param == "disk" else f"file://{tmp_path}"


def test_figures_come_back_as_they_were_the_oldest_first(output):
    noted = [figure(60.0, runs=(59.0, 61.0), nets=2), figure(40.0, at=None), figure(50.0, set_id="b" * 64)]
    Notes(output).add(noted)
    found, problems = Notes(output).figures()
    assert problems == []
    assert found == [noted[1], noted[2], noted[0]]
    assert (found[2].std, found[2].text) == (1.0, "60.00 +- 1.00")


def test_a_name_moves_and_goes(output):
    Notes(output).give("champion", "a" * 64, "one/0")
    Notes(output).give("champion", "b" * 64, "two/0")
    names, problems = Notes(output).names()
    assert (names["champion"].set_id, names["champion"].place, problems) == ("b" * 64, "two/0", [])
    Notes(output).take_away("champion")
    Notes(output).take_away("champion")
    assert Notes(output).names() == ({}, [])


def test_many_writers_at_once_lose_nothing(output):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: Notes(output).add([figure(float(number))] * 3), range(40)))
    found, problems = Notes(output).figures()
    assert problems == []
    assert [each.mean for each in found] == [float(number) for number in range(40) for _ in range(3)]


def test_a_writer_that_is_killed_leaves_whole_figures_only(tmp_path):
    code = """
import sys
from pathlib import Path
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.notes import Notes

figure = Figure.model_validate_json(sys.stdin.read())
while True:
    Notes(Path(sys.argv[1])).add([figure])
    print("noted", flush=True)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    writer.stdin.write(figure().model_dump_json())
    writer.stdin.close()
    for _ in range(20):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.stdout.close()
    writer.wait()
    found, problems = Notes(tmp_path).figures()
    assert problems == []
    assert len(found) >= 20
    assert {each.mean for each in found} == {50.0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it: Invalid JSON"),
        ('{"set_id": "a', "it: Invalid JSON"),
        ("{}", "set_id: Field required"),
        (figure().model_dump_json().replace('"test"', '"train"'), "split: Input should be"),
        (figure().model_dump_json().replace('"format":1', '"format":2'), "format: Input should be 1"),
    ],
)
def test_what_is_no_figure_is_told_and_the_others_are_believed(output, tmp_path, text, why):
    Notes(output).add([figure()])
    bad = tmp_path / NOTES / "figures" / ("a" * 64) / "bad.json"
    bad.write_text(text)
    found, (problem,) = Notes(output).figures()
    assert len(found) == 1
    assert f"bad.json is no figure: {why}" in problem


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / NOTES).write_text("a file is in the way")
    with pytest.raises(UserError, match=r"\.sets cannot be written: "):
        Notes(tmp_path).add([figure()])


def test_figures_are_moved_with_their_folder(tmp_path):
    Notes(tmp_path / "runs").add([figure()])
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert Notes(tmp_path / "moved").figures() == ([figure()], [])
    assert Notes(tmp_path / "runs").figures() == ([], [])


def test_a_file_whose_name_is_no_name_gives_none(output, tmp_path):
    Notes(output).give("champion", "a" * 64, "one/0")
    file = tmp_path / NOTES / "names" / "champion.json"
    file.with_name("a b.json").write_text(file.read_text())
    names, (problem,) = Notes(output).names()
    assert list(names) == ["champion"]
    assert problem == ".sets/names/a b.json is no name of a set: its file is not called so"
