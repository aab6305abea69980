"""How a study remembers that a trial was computed before; imports nothing, so that whoever only looks may read it."""

FINGERPRINT, ANSWERED, SAVED = "fingerprint", "answered_by", "saved_seconds"
"""Facts of a trial: what identifies its bits, empty where they are of several kinds; the earlier trial that it was
answered by, such as ``digits/0007``; and, in its report, the seconds that this one had computed for."""


def answered_text(by: str | None) -> str:
    """``answered by digits/0007``; empty for a trial that was computed."""
    return f"answered by {by}" if by else ""
