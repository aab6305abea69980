"""The state of a run on disk, as safetensors."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from idm_ray.errors import UserError
from idm_ray.runtime.files import write_bytes


def write_state(path: Path, state: Mapping[str, Tensor], fingerprint: str, note: str = "") -> None:
    """Save the state of a run as safetensors, in one step.

    Args:
        path: the file.
        state: named CPU tensors.
        fingerprint: of the settings that the state belongs to.
        note: text to keep with it.
    """
    contiguous = {key: value.contiguous() for key, value in state.items()}
    write_bytes(path, save(contiguous, {"fingerprint": fingerprint, "note": note}))


def read_state(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], str] | None:
    """The state and note that `write_state` saved, or None where there is none.

    Raises:
        UserError: the file is damaged, or belongs to other settings.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"the checkpoint {path} cannot be read ({error}); remove it to start anew") from None
    if metadata.get("fingerprint") != fingerprint:
        raise UserError(
            f"the checkpoint {path} was made with other settings; use those, or remove it to start anew"
        )
    return state, metadata.get("note", "")
