import pytest
from rich.console import Console

from idm_ray.commands.terminal import Bars, exit_code
from idm_ray.errors import UserError


def raising(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "code", "told"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (
            raising(UserError("condense.lr must be above 0;\n got 0")),
            2,
            "error: condense.lr must be above 0; got 0\n",
        ),
        (raising(KeyboardInterrupt()), 130, ""),
    ],
)
def test_a_command_ends_with_its_code_and_one_line(call, code, told, capsys):
    assert exit_code(call) == code
    assert capsys.readouterr().err == told


def test_our_own_fault_shows_where(capsys):
    assert exit_code(raising(ZeroDivisionError("by zero"))) == 1
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err


def test_bars_come_and_go(capsys):
    with Bars(Console(force_terminal=True, width=100)) as bars:
        for done in range(1, 4):
            bars("build digits", done, 3, "checked")
    assert "build digits" in capsys.readouterr().out
