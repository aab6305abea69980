"""The state of a run on disk, as safetensors."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from idm_ray.errors import UserError
from idm_ray.runtime.files import whole_file


class Damaged(UserError):
    """A file does not hold what was written into it."""


class Unreadable(UserError):
    """A file cannot be read now, which says nothing about what it holds."""


SHOWN = 5
"""Differing settings that a message names, at most."""
DIGEST = "sha256"


def write_state(path: Path, state: Mapping[str, Tensor], fingerprint: str, note: str = "") -> None:
    """Save the state of a run as safetensors, in one step.

    Args:
        path: the file.
        state: named tensors.
        fingerprint: of the settings that the state belongs to.
        note: text to keep with it.

    Raises:
        OSError: it cannot be written.
    """
    contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    about = {"fingerprint": fingerprint, "note": note}
    with whole_file(path) as draft:
        try:
            save_file(contiguous, draft, {**about, DIGEST: _digest(contiguous, about)})
        except SafetensorError as error:
            raise _of_the_system(error, path) or error from None


def read_note(path: Path) -> str:
    """The note that `write_state` saved, whatever the settings; empty where there is no state.

    It is believed without a look at the rest of the file, see `read_state`.

    Raises:
        Damaged: it is none.
        Unreadable: it cannot be read now.
    """
    if not path.exists():
        return ""
    with _opened(path) as file:
        return str((file.metadata() or {}).get("note", ""))


def read_state(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], str] | None:
    """The state and note that `write_state` saved, or None where there is none.

    Raises:
        Damaged: anything in it is not as it was written, or an earlier version wrote it.
        Unreadable: it cannot be read now.
        UserError: it belongs to other settings.
    """
    if not path.exists():
        return None
    with _opened(path) as file:
        metadata = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if metadata.pop(DIGEST, "") != _digest(state, metadata):
        raise Damaged(
            f"the checkpoint {path} does not match its SHA-256, or is of an earlier version without; remove it to "
            "start anew"
        )
    if metadata.get("fingerprint") != fingerprint:
        others = differing(metadata.get("fingerprint"), fingerprint)
        raise UserError(
            f"the checkpoint {path} was made with other settings{others}; use those, or choose another folder "
            "to start anew"
        )
    return state, metadata.get("note", "")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        system = error if isinstance(error, OSError) and error.errno else _of_the_system(error, path)
        if system:
            raise Unreadable(
                f"the checkpoint {path} cannot be read now ({system.strerror}); try again"
            ) from None
        raise Damaged(f"the checkpoint {path} cannot be read ({error}); remove it to start anew") from None


def _of_the_system(error: Exception, path: Path) -> OSError | None:
    """The error of the system that safetensors tells in words; None where it tells of none."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else None


def _digest(state: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 over all that a state says."""
    layout = [[name, str(state[name].dtype), [*state[name].shape]] for name in sorted(state)]
    digest = hashlib.sha256(json.dumps([layout, dict(about)], sort_keys=True).encode())
    for name in sorted(state):
        digest.update(state[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def differing(before: str | None, now: str) -> str:
    """`` (condense.lr 0.1, now 0.2)``, where both fingerprints are JSON; else nothing.

    Args:
        before: a fingerprint of settings.
        now: another one.
    """
    try:
        was, asked = (dict(_flat(json.loads(text or ""))) for text in (before, now))
    except ValueError:
        return ""
    keys = [key for key in asked if was.get(key) != asked[key]]
    return (
        f" ({', '.join(f'{key} {was.get(key)}, now {asked[key]}' for key in keys[:SHOWN])})" if keys else ""
    )


def _flat(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from _flat(inner, f"{key}.{name}" if key else name)
