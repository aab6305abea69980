"""Numbers in sentences."""


def plural(count: int, word: str) -> str:
    """``1 net``, ``5 nets``."""
    return f"{count} {word}{'s' * (count != 1)}"
