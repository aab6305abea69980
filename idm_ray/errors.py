"""The one exception for everything a user can mend."""

import reprlib

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 20
_BRIEF.maxlevel = 3


def brief(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    return _BRIEF.repr(value)


class UserError(Exception):
    """Bad input, told in one line: the rule, the value received, the choices and the fix.

    Scripts print the message without a traceback and leave with exit code 2.
    """
