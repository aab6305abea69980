"""Inputs that somebody may have damaged or made up."""

import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 2**64, 10**30]), st.floats()
)
WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "..", "../x", "/etc/passwd", "a" * 5000, "\0", "<script>", "!!python/object:x", "~", "off"]),
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=8,
)
"""Whatever JSON and YAML can say."""


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are others, missing, or more."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(changed)))
        match draw(st.sampled_from(["cut", "flip", "insert", "remove", "zero"])):
            case "cut":
                del changed[at:]
            case "flip" if at < len(changed):
                changed[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                changed[at:at] = draw(st.binary(max_size=9))
            case "remove":
                del changed[at : at + draw(st.integers(1, 9))]
            case "zero":
                changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    return bytes(changed)


@st.composite
def altered(draw: st.DrawFn, plain: Any) -> Any:
    """Plain data of which one part is another, or missing."""
    whole = json.loads(json.dumps(plain))
    places = list(_places(whole))
    holder, key = draw(st.sampled_from(places))
    if draw(st.integers(0, 4)):
        holder[key] = draw(PLAIN)
    else:
        del holder[key]
    return whole


def _places(plain: Any) -> Any:
    keys = list(plain) if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ()
    for key in keys:
        yield plain, key
        yield from _places(plain[key])
