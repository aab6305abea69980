"""What is told to people, and the one exception for everything that a user can mend."""

import reprlib

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 20
_BRIEF.maxlevel = 3


def brief(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    return _BRIEF.repr(value)


MOST_LETTERS = 1200
"""Of an error's line: files that somebody made up can hold names and values of any length."""


class Told(Exception):
    """An error whose words people read in one line: where they are too many, those in the middle are left out.

    What cannot be printed, as of a name that somebody made up, is a space or written as Python escapes it.
    """

    def __str__(self) -> str:
        words = "".join(each if each.isprintable() else _escaped(each) for each in super().__str__())
        if len(words) <= MOST_LETTERS:
            return words
        return f"{words[: MOST_LETTERS * 2 // 3]} ... {words[-MOST_LETTERS // 3 :]}"


def _escaped(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode()


class UserError(Told):
    """Bad input, told in one line: the rule, the value received, the choices and the fix.

    Scripts print the message without a traceback and leave with exit code 2.
    """


class TooLarge(UserError, MemoryError):
    """There is less memory free here than is needed: a command ends with the line, a trial waits for more."""
