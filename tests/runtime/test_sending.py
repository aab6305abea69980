import pytest
import torch

from idm_ray.runtime.sending import Parcel, joined, parted, send

CPU = torch.device("cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def made(device):
    """Sizes that leave every number of a later tensor off its place, unless larger ones come first."""
    generator = torch.Generator().manual_seed(1)
    plain = [
        torch.tensor(True),
        torch.randn(3, generator=generator),
        torch.randint(9, (5,), generator=generator),
        torch.randn(2, 3, generator=generator).double(),
        torch.tensor(0.25),
        torch.empty(0, 4),
        torch.randint(255, (7,), dtype=torch.uint8, generator=generator),
    ]
    return [tensor.to(device) for tensor in plain]


@pytest.mark.parametrize("device", DEVICES)
def test_a_parcel_holds_what_was_put_in_when_it_is_opened_later(device):
    tensors = made(device)
    parcel = Parcel(tensors)
    expected = [tensor.cpu().clone() for tensor in tensors]
    for tensor in tensors:
        tensor.zero_()  # computed on meanwhile
    for found, want in zip(parcel.open(), expected, strict=True):
        assert found.device == CPU
        assert found.dtype == want.dtype
        assert torch.equal(found, want)


def test_bytes_are_joined_once_and_parted_in_place():
    tensors = made("cpu")
    flat = joined(tensors)
    assert flat.numel() == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    parts = parted(flat, [(tensor.dtype, tensor.shape) for tensor in tensors])
    assert all(map(torch.equal, parts, tensors))
    held = range(flat.data_ptr(), flat.data_ptr() + flat.numel())
    assert all(part.data_ptr() in held for part in parts if part.numel())


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_sent_arrives(device):
    numbers = torch.arange(10)
    sent = send(numbers, torch.device(device))
    assert sent.device.type == device
    assert torch.equal(sent.cpu(), numbers)
