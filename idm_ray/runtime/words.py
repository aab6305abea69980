"""Numbers, and what went wrong, in sentences."""


def plural(count: int, word: str) -> str:
    """``1 net``, ``5 nets``."""
    return f"{count} {word}{'s' * (count != 1)}"


def size_text(count: int) -> str:
    """Bytes with the unit that people would use: ``193 GB``, ``1.9 MB``, ``92 kB``."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= factor:
            return f"{count / factor:.0f} {unit}" if count >= 10 * factor else f"{count / factor:.1f} {unit}"
    return f"{-(-count // 1000)} kB"


def first_line(error: BaseException) -> str:
    """What went wrong, on one line; the kind of error where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
