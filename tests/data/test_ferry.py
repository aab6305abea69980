import pytest
import torch

from idm_ray.data.ferry import Ferry
from idm_ray.data.sampling import split_images

OFFSETS = (0, 5, 7, 17)


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (17, 3, 4, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_batches_of_any_size_are_brought_as_they_are_and_stay_when_the_next_ones_come():
    ferry, wanted = Ferry(torch.device("cpu")), [[3, 3, 16], [0], list(range(17)), [], [5, 1]]
    brought = [ferry.bring(pixels(), torch.tensor(rows, dtype=torch.int64)) for rows in wanted]
    for rows, batch in zip(wanted, brought, strict=True):
        assert torch.equal(batch, pixels()[rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("room", [0, 10 * 24])
def test_on_a_gpu_a_split_beyond_its_room_stays_on_the_host_and_gives_the_same_images(room):
    rows, device = torch.arange(11), torch.device("cuda")
    mean, std = (0.1,) * 3, (0.5,) * 3
    hosted = split_images(pixels(), rows, OFFSETS, mean, std, device, room)
    here = split_images(pixels(), rows, OFFSETS, mean, std, device)
    assert (hosted.place.type, here.place.type) == ("cpu", "cuda")
    positions = hosted.sample_per_class(3, torch.Generator().manual_seed(0))
    for _ in range(5):
        torch.testing.assert_close(hosted.images(positions), here.images(positions.cuda()))
    assert torch.equal(hosted.labels[positions], here.labels[positions.cuda()])
