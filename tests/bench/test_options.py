"""The command line of the benchmark."""

import pytest
import torch

from idm_ray.bench.amounts import PARTS
from idm_ray.bench.options import resolve
from idm_ray.bench.run import MEASURES
from idm_ray.bench.scene import base_scene
from idm_ray.bench.variants import choose_variants, fastest
from idm_ray.commands.bench import command
from idm_ray.errors import UserError

CPU = torch.device("cpu")


def options(*arguments):
    context = command.make_context("bench", ["--device", "cpu", *arguments])
    return resolve(context.params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "a,z"], "--parts must be names of a, b.*'a,z'"),
        (["--parts", ""], "--parts must be names of"),
        (["--threads", "0"], "--threads must be at least 1; got 0"),
        (["--iterations", "0"], "--iterations must be at least 1; got 0"),
        (["--epochs", "1"], "--epochs must be at least 2; got 1"),
        (["--train-steps", "-1"], "--train-steps must be at least 0; got -1"),
        (["--precisions", "fp16"], "--precisions must be names of fp32, tf32, bf16"),
        (["--precisions", "tf32"], "tf32 is for CUDA"),
        (["--modes", "fast"], "--modes must be names of eager, compiled, auto"),
        (["--root", "nowhere"], "--root must be a folder .* got nowhere"),
        (["--sweep-trials", "1,99"], "--sweep-trials must be numbers from 1 to 16"),
        (["--json", "/"], "--json must be a file"),
        (["--json", "/dev/null/report.json"], "cannot be written"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        options(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="sees no CUDA device"):
        options("--device", "cuda")


def test_parts_come_in_their_own_order():
    assert options("--parts", "f,a").parts == ("a", "f")


def test_faults_alone_are_all_that_is_measured():
    assert options("--faults", "3").parts == ("n",)
    assert options("--faults", "3", "--parts", "a").parts == ("a",)
    assert options("--faults", "3").amounts.faults == 3
    assert options("--faults", "3", "--faults-before", "36").amounts.faults_before == 36
    assert options("--load", "9").parts == ("o",)
    assert options("--load", "9", "--faults", "3").parts == ("n", "o")


def test_flags_override_the_amounts_of_all_parts():
    amounts = options("--batch-real", "7", "--iterations", "3").amounts
    assert (amounts.work.batch_real, amounts.scaling_work.batch_real, amounts.iterations) == (7, 7, 3)
    assert (amounts.work.queue_batch, amounts.work.train_steps) == (256, 10)


def test_nets_of_an_evaluation_are_stacked_as_asked():
    assert base_scene(options()).config.evaluate.stack == "auto"
    assert base_scene(options("--stack", "off")).config.evaluate.stack == "off"


def test_the_plain_reference_comes_first_and_no_way_twice():
    variants = choose_variants(CPU, ("fp32", "bf16"), ("eager", "compiled", "auto"))
    names = [variant.name for variant in variants]
    assert names[:2] == ["plain fp32", "ours fp32 eager"]
    assert len({(variant.plain, variant.compute) for variant in variants}) == len(variants)
    assert [variant.precision for variant in fastest(variants)] == ["fp32", "fp32", "bf16"]


def test_every_part_has_a_title_and_is_measured():
    assert list(PARTS) == list(MEASURES)
