import pytest

from idm_ray.runtime.progress import Lines, Pace, duration, how_far


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self):
        return self.now


def test_lines_begin_after_ten_seconds_and_come_once_a_minute():
    clock, said = Clock(), []
    lines = Lines(said.append, clock)
    for second in range(200):
        clock.now = float(second)
        lines("condense", second, 400, f"loss {second}")
    assert said == [
        "condense: 2 %, about 6 min left; loss 10",
        "condense: 17 %, about 6 min left; loss 70",
        "condense: 32 %, about 4 min left; loss 130",
        "condense: 47 %, about 4 min left; loss 190",
    ]


def test_short_work_says_nothing():
    clock, said = Clock(), []
    lines = Lines(said.append, clock)
    for step in range(10):
        clock.now = step * 0.9
        lines(f"store {step % 2}", step, 10)
    assert said == []


def test_what_was_done_before_does_not_count_as_fast():
    clock = Clock()
    pace = Pace(clock)
    assert pace.left("condense", 90, 100) is None
    clock.now = 10.0
    assert pace.left("condense", 95, 100) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (89, "89 s"), (170, "3 min"), (18_720, "5.2 h")]
)
def test_a_duration_has_the_unit_that_people_would_use(seconds, text):
    assert duration(seconds) == text


def test_nothing_is_promised_before_something_is_known():
    assert how_far("build", 0, 10, None) == "build: 0 %"
