"""What is compared: the plain reference, and the product in each precision and way to run."""

from dataclasses import dataclass

import torch

from idm_ray.bench.amounts import MODES
from idm_ray.runtime.compute import Compute, choose_compute
from idm_ray.settings.sections import ComputeConfig

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Variant:
    """One way to compute the same thing.

    Attributes:
        precision: one of `amounts.PRECISIONS`.
        mode: a key of `amounts.MODES`, or plain for the reference.
        compute: the same for the product's functions.
    """

    precision: str
    mode: str
    compute: Compute

    @property
    def plain(self) -> bool:
        """Whether this is the reference."""
        return self.mode == "plain"

    @property
    def name(self) -> str:
        """``plain fp32``, ``ours bf16 compiled``."""
        return f"plain {self.precision}" if self.plain else f"ours {self.precision} {self.mode}"


def plain_variant(device: torch.device, precision: str = "fp32") -> Variant:
    """The reference, eager."""
    return Variant(precision, "plain", Compute(device, DTYPES[precision], False, tf32=precision == "tf32"))


def choose_variants(
    device: torch.device, precisions: tuple[str, ...], modes: tuple[str, ...]
) -> tuple[Variant, ...]:
    """The plain float32 reference, then all others; ways that come to the same here are listed once.

    Args:
        device: where all run.
        precisions: keys of `PRECISIONS`.
        modes: keys of `MODES`.
    """
    found = [plain_variant(device)]
    if "tf32" in precisions:
        found.append(plain_variant(device, "tf32"))
    for precision in precisions:
        known: list[Compute] = []
        for mode in modes:
            settings = ComputeConfig.model_validate(
                {
                    "device": device.type,
                    "precision": precision,
                    "compile": MODES[mode],
                }
            )
            compute = choose_compute(settings, work=float("inf"))
            if compute not in known:
                found.append(Variant(precision, mode, compute))
                known.append(compute)
    return tuple(found)


def fastest(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """The plain float32 reference, and for each precision the product's last way (auto, where asked for)."""
    last = {variant.precision: variant for variant in variants if not variant.plain}
    return (variants[0], *last.values())
