"""A record as it travels through Ray's object store: plain arrays, which readers map and do not copy."""

import warnings
from typing import Any

import torch
from torch import Tensor

from idm_ray.condensation import RealRecord
from idm_ray.condensation.augment import Draws

ARRAYS = ("weights", "accuracy", "targets", "ages")


def pack(record: RealRecord) -> dict[str, Any]:
    """A record as numpy arrays and plain values."""
    arrays = {name: getattr(record, name).cpu().numpy() for name in ARRAYS}
    draws = {"operations": record.draws.operations, "uniforms": record.draws.uniforms.cpu().numpy()}
    return {"step": record.step, "seconds": record.seconds, **arrays, **draws}


def size(packed: dict[str, Any]) -> int:
    """Bytes of its arrays."""
    return sum(packed[name].nbytes for name in (*ARRAYS, "uniforms"))


def unpack(packed: dict[str, Any], device: torch.device) -> RealRecord:
    """The record again; on the CPU its tensors lie in the (read-only) object store and must not be written."""

    def tensor(name: str) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            found: Tensor = torch.from_numpy(packed[name])
        return found if name == "ages" else found.to(device, non_blocking=True)

    return RealRecord(
        step=packed["step"],
        weights=tensor("weights"),
        accuracy=tensor("accuracy"),
        draws=Draws(packed["operations"], tensor("uniforms")),
        targets=tensor("targets"),
        ages=tensor("ages"),
        seconds=packed["seconds"],
    )
