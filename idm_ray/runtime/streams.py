"""Randomness is passed in: one root seed, one named stream per purpose and position."""

import hashlib

import torch


def stream(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on its name alone, never on what was drawn before.

    So the randomness of step 700 is known without running steps 0 to 699, and a resumed run needs
    no saved generator state: (seed, step) is the state.

    Args:
        seed: the root seed of the run.
        purpose: what the numbers are for, such as "queue init" or "draws".
        position: indices within the purpose, such as the step or the repeat.
        device: where numbers are drawn; CPU and CUDA streams of one name differ.
    """
    name = repr((seed, purpose, position)).encode()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:8], "little") >> 1)
    return generator
