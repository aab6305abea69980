import subprocess
import sys

import pytest
import torch

from idm_ray.runtime import memory
from idm_ray.runtime.memory import CLEAR, forget_peak, peak_bytes

LARGE, SMALL = 2**28, 2**26
PEAKS = """
import sys
import torch
from idm_ray.runtime.compute import keep_freed_memory
from idm_ray.runtime.memory import forget_peak, give_back_freed_memory, peak_bytes

keep_freed_memory()
peaks = []
for size in map(int, sys.argv[1:]):
    held = [torch.ones(size // 64, dtype=torch.uint8) for _ in range(64)]
    peaks.append(peak_bytes(held[0].device))
    del held
    give_back_freed_memory()
    forget_peak()
print(*peaks)
"""


@pytest.mark.skipif(not CLEAR.exists(), reason="a peak is forgotten where Linux lets it")
def test_a_peak_counts_from_where_it_was_forgotten_also_where_freed_memory_is_kept():
    command = [sys.executable, "-c", PEAKS, *map(str, (LARGE, SMALL, LARGE))]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second, third = map(int, found.stdout.split())
    assert second < first - (LARGE - SMALL) / 2
    assert third > second + (LARGE - SMALL) / 2


def test_where_a_peak_cannot_be_forgotten_it_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "nowhere" / "clear_refs")
    before = peak_bytes(torch.device("cpu"))
    forget_peak()
    assert peak_bytes(torch.device("cpu")) >= before
