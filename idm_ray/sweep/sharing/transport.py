"""A record as it travels through Ray's object store: plain arrays, which readers map and do not copy."""

import warnings
from typing import Any

import torch
from torch import Tensor

from idm_ray.condensation import RealRecord
from idm_ray.condensation.augment import Draws
from idm_ray.runtime.sending import Parcel, send

ARRAYS = ("weights", "accuracy", "targets", "trained")
"""Of a record, on the device that computed it; so are the uniforms of its draws. The last is not there for all."""


class Packing:
    """A record on its way to the host; see `Parcel`."""

    def __init__(self, record: RealRecord):
        self._record = record
        self._there = [name for name in ARRAYS if getattr(record, name) is not None]
        self._parcel = Parcel([*(getattr(record, name) for name in self._there), record.draws.uniforms])

    def done(self) -> dict[str, Any]:
        """The record as numpy arrays and plain values, as soon as it is there."""
        record = self._record
        arrays = (tensor.numpy() for tensor in self._parcel.open())
        named = dict(zip((*self._there, "uniforms"), arrays, strict=True))
        plain = {"step": record.step, "seconds": record.seconds, "ages": record.ages.numpy()}
        return {**plain, "operations": record.draws.operations, **named}


def pack(record: RealRecord) -> dict[str, Any]:
    """A record as numpy arrays and plain values."""
    return Packing(record).done()


def size(packed: dict[str, Any]) -> int:
    """Bytes of its arrays."""
    return sum(packed[name].nbytes for name in (*ARRAYS, "uniforms", "ages") if name in packed)


def unpack(packed: dict[str, Any], device: torch.device) -> RealRecord:
    """The record again; on the CPU its tensors lie in the (read-only) object store and must not be written."""

    def tensor(name: str) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            found: Tensor = torch.from_numpy(packed[name])
        return found if name == "ages" else send(found, device)

    return RealRecord(
        step=packed["step"],
        weights=tensor("weights"),
        accuracy=tensor("accuracy"),
        draws=Draws(packed["operations"], tensor("uniforms")),
        targets=tensor("targets"),
        ages=tensor("ages"),
        seconds=packed["seconds"],
        trained=tensor("trained") if "trained" in packed else None,
    )
