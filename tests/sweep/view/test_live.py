import io

import pytest
from rich.console import Console

from idm_ray.sweep.view.board import COMPLETE, RUNNING, Board, Row
from idm_ray.sweep.view.live import Display, shown

POINT = {
    "condense.lambda_reg": 12.345678,
    "condense.lr": 0.0851,
    "condense.partition": 3,
    "queue.max_nets": 20,
    "queue.train_steps": 7,
}


@pytest.fixture
def drawn():
    """The table of two trials, one at work, as lines of a terminal of some width."""

    def draw(width):
        board, console = Board(), Console(width=width, file=io.StringIO())
        display = Display(board, 12, lambda point: 60, console, 0)
        board.put(Row(0, POINT, COMPLETE, iteration=60, accuracy=41.2, seconds=100, shared_seconds=20))
        board.put(Row(1, POINT, RUNNING, iteration=30, accuracy=39.0, seconds=50, shared_seconds=10))
        with console.capture() as capture:
            console.print(display._table(), no_wrap=True)
        return [line.rstrip() for line in capture.get().splitlines()]

    return draw


@pytest.mark.parametrize(
    ("width", "shown", "hidden"),
    [(120, "seconds", "settings"), (80, "partition", "seconds"), (60, "lambda_reg=12.35", "partition")],
)
def test_a_narrow_terminal_shows_less_and_cuts_no_number(drawn, width, shown, hidden):
    lines = drawn(width)
    text = "\n".join(lines)
    assert shown in text
    assert hidden not in text
    assert max(map(len, lines)) <= width
    for whole in ("0000", "complete", "60/60", "41.20", "30/60", "39.00"):
        assert whole in text


def test_trials_are_counted_when_they_have_ended(drawn):
    assert "1 of 12 trials ended (1 running, 1 complete)" in drawn(120)[0]


def test_what_runs_is_in_the_table_however_many_have_ended():
    rows = [Row(number, {}, RUNNING if number in (1, 40) else COMPLETE) for number in range(60)]
    numbers = [row.number for row in shown(rows)]
    assert numbers == [1, 40, *range(42, 60)]
    assert shown(rows[:5]) == rows[:5]
    assert len(shown([Row(number, {}) for number in range(60)])) == 20
