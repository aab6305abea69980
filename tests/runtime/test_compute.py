import os
import subprocess
import sys

import pytest
import torch

from idm_ray.errors import UserError
from idm_ray.runtime import compute as module
from idm_ray.runtime.compute import Compute, choose_compute, describe, ready_process, resolve
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import ComputeConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_by_hand(precision, dtype):
    assert choose_compute(ComputeConfig(device="cpu", precision=precision)).precision == dtype


@pytest.mark.parametrize(
    ("units", "dtype"),
    [(["amx_bf16"], torch.bfloat16), (["avx512_bf16"], torch.bfloat16), (["avx512_f"], torch.float32)],
)
def test_bf16_is_chosen_where_the_cpu_multiplies_it(monkeypatch, units, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(units, True))
    assert choose_compute(ComputeConfig(device="cpu")).precision == dtype


def test_what_is_auto_is_named_once_for_all_machines(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    resolved = resolve(ComputeConfig())
    assert (resolved.device, resolved.precision) == ("cpu", "bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # another machine
    assert choose_compute(resolved).precision == torch.bfloat16
    assert "no units for" in describe(choose_compute(resolved))
    assert resolve(ComputeConfig()).precision == "fp32"
    assert resolve(ComputeConfig(device="cuda")).precision == "bf16"  # on the head of a cluster


def test_a_card_without_bf16_refuses_what_others_compute_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old card")
    assert resolve(ComputeConfig()).precision == "fp32"
    with pytest.raises(UserError, match="bf16, which an old card cannot; choose fp32"):
        choose_compute(ComputeConfig(precision="bf16"))


def test_tf32_is_float32_that_only_cuda_may_round(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = {
        precision: choose_compute(ComputeConfig(precision=precision), 0.0) for precision in ("fp32", "tf32")
    }
    assert [found["tf32"].precision, found["tf32"].tf32, found["fp32"].tf32] == [torch.float32, True, False]
    assert found["tf32"].numbers != found["fp32"].numbers
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        for name, compute in found.items():
            ready_process(compute)
            assert matmul.allow_tf32 == cudnn.allow_tf32 == (name == "tf32")
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    with pytest.raises(UserError, match="tf32 is for CUDA devices"):
        choose_compute(ComputeConfig(device="cpu", precision="tf32"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no CUDA device"):
        choose_compute(ComputeConfig(device="cuda"))


@pytest.mark.parametrize(
    ("setting", "work", "compiler", "expected"),
    [
        ("auto", 0.0, True, False),
        ("auto", 1e18, True, True),
        ("auto", 1e18, False, False),
        ("on", 0.0, True, True),
        ("on", 0.0, False, False),
        ("off", 1e18, True, False),
    ],
)
def test_compiling_is_for_long_runs_where_there_is_a_compiler(monkeypatch, setting, work, compiler, expected):
    monkeypatch.setattr(module, "has_compiler", lambda device: compiler)
    assert choose_compute(ComputeConfig(device="cpu", compile=setting), work).compile == expected


def test_a_compiler_that_fails_is_done_without_a_word(tmp_path):
    code = """
import torch
from idm_ray.runtime.compute import Compute

run = Compute(torch.device("cpu"), torch.float32, compile=True).optimise(lambda x: 3 * x * x)
for value in (1.0, 2.0):
    x = torch.full((2,), value, requires_grad=True)
    run(x).sum().backward()
    print(run(x).tolist(), x.grad.tolist())
"""
    environment = os.environ | {"CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split("\n") == ["[3.0, 3.0] [6.0, 6.0]", "[12.0, 12.0] [12.0, 12.0]", ""]
    assert not done.stderr


def test_autocast_runs_products_in_bf16_only_when_asked():
    matrix = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Compute(CPU, dtype, compile=False).autocast():
            assert (matrix @ matrix).dtype == dtype


def test_the_device_is_told_in_words():
    assert describe(Compute(CPU, torch.float32, compile=False)) == "cpu (1 thread, float32)"


def test_a_stream_depends_on_its_whole_name():
    def first(*name):
        return float(torch.rand((), generator=stream(*name)))

    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 1, 0)]
    assert len({first(*name) for name in names}) == len(names)
    assert first(0, "a", 1) == first(0, "a", 1)
