import pytest

from idm_ray.bench import correctness
from idm_ray.bench.options import resolve
from idm_ray.bench.output import markdown
from idm_ray.commands.bench import command
from idm_ray.condensation import METHODS


@pytest.fixture(scope="module")
def result():
    given = ["--quick", "--device", "cpu", "--threads", "1", "--precisions", "fp32"]
    options = resolve(command.make_context("bench", given).params)
    return correctness.measure(options, lambda line: None)


def test_every_method_is_near_itself_in_float64(result):
    assert [each["method"] for each in result.measurements] == list(METHODS)
    for each in result.measurements:
        assert each["off"]["fp64"] == 0  # the same way, on the same machine
        assert each["off"]["fp32"] < 0.1


def test_a_table_becomes_markdown(result):
    head, _, columns, line, *rows = markdown(result.tables[0]).splitlines()
    assert head.startswith("### l. What")
    assert columns == "|  | side | fp64 | fp32 |"
    assert set(line) == set("| -")
    assert rows[0].startswith("| idm | 8 | 0.0e+00 |")
    assert rows[len(METHODS) + 1].startswith("S after 2 iterations")
