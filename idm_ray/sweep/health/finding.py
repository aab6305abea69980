"""What an examination of a machine finds."""

from dataclasses import dataclass
from typing import Literal

from idm_ray.errors import UserError
from idm_ray.runtime.words import first_line

Verdict = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of an examination.

    Attributes:
        subject: what was looked at, in a word or two.
        verdict: ok; note, where a sweep starts and would be better off otherwise; wrong, where none starts.
        text: what was found.
        mend: the command, or the setting, that mends it; empty where nothing is to be mended.
    """

    subject: str
    verdict: Verdict
    text: str
    mend: str = ""


def ok(subject: str, text: str) -> Finding:
    """What is as it should be."""
    return Finding(subject, "ok", text)


def note(subject: str, text: str, mend: str = "") -> Finding:
    """What no sweep fails for."""
    return Finding(subject, "note", text, mend)


def wrong(subject: str, error: Exception) -> Finding:
    """What a sweep is refused with, or would end with: our lines say after their last semicolon what mends it."""
    if not isinstance(error, UserError):
        return Finding(subject, "wrong", f"cannot be examined: {type(error).__name__}: {first_line(error)}")
    text, sign, mend = str(error).rpartition("; ")
    return Finding(subject, "wrong", text, mend) if sign else Finding(subject, "wrong", mend)
