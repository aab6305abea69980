import numpy as np
from torchvision.datasets import ImageFolder

from idm_ray.artifacts.export import EXPORTS
from idm_ray.commands.export import KINDS

SMALL = ("net.width=4", "net.depth=1", "condense.iterations=1", "condense.batch_real=8", "queue.batch=8",
         "condense.partition=2", "--no-evaluation")  # fmt: skip


def test_the_kinds_are_those_that_there_are():
    assert list(EXPORTS) == list(KINDS)


def test_a_set_is_exported_once_and_nothing_is_overwritten(call, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("condense", "digits", *SMALL, "--out", "made").code == 0
    done = call("export", "made/condensed", "--to", "folder", "--out", "images")
    assert (done.code, done.output) == (0, "images\n")
    assert len(ImageFolder("images")) == 40
    call("export", "made/condensed", "--to", "npz", "--out", "set.npz", "--no-expand")
    assert np.load("set.npz")["images"].shape == (10, 1, 8, 8)
    assert "holds something" in refused("export", "made/condensed", "--to", "folder", "--out", "images")
    assert "folder" in refused("export", "made/condensed", "--to", "zip", "--out", "elsewhere")
