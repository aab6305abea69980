import pytest
import torch
from PIL import Image

from idm_ray.data import load_data
from idm_ray.data import remote as remote_module
from idm_ray.data.remote import LISTING, local_copy
from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides


@pytest.fixture
def images(tmp_path):
    """A folder of images, and the URI under which pyarrow finds it."""
    root = tmp_path / "images"
    for split in ("train", "test"):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for index in range(6):
                Image.new("RGB", (12, 12), (40 * index, 90 * label, 0)).save(
                    root / split / name / f"{index}.png"
                )
    return root, f"file://{root}"


@pytest.fixture
def copied(monkeypatch):
    """Names of the files that are copied."""
    names, copy = [], remote_module._copy

    def note(files, source, target):
        names.append(source.rpartition("/")[2])
        copy(files, source, target)

    monkeypatch.setattr(remote_module, "_copy", note)
    return names


def config(root):
    words = ("dataset.name=folder", f"dataset.root={root}", "dataset.image_size=12")
    return build_config(("test", parse_overrides(words))).dataset


def test_images_behind_a_uri_are_those_of_the_folder(images, tmp_path):
    root, uri = images
    here = load_data(config(root), 0, torch.device("cpu"), tmp_path / "one")
    there = load_data(config(uri), 0, torch.device("cpu"), tmp_path / "two")
    assert (here.checksum, here.class_names) == (there.checksum, there.class_names)
    assert uri in there.source


def test_only_what_is_new_is_copied_and_what_is_gone_goes(images, tmp_path, copied):
    root, uri = images
    told = []
    folder = local_copy(uri, tmp_path / "cache", lambda *far: told.append(far))
    assert len(copied) == 24
    assert told[-1][1] == told[-1][2] > 0
    copied.clear()
    assert local_copy(uri, tmp_path / "cache") == folder
    assert copied == []
    (root / "train" / "ant" / "0.png").unlink()
    Image.new("RGB", (12, 12)).save(root / "train" / "ant" / "new.png")
    local_copy(uri, tmp_path / "cache")
    assert copied == ["new.png"]
    theirs = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    assert {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != LISTING
    } == theirs


def test_a_copy_goes_on_where_it_was_ended(images, tmp_path, copied, monkeypatch):
    _, uri = images
    note, left = remote_module._copy, 10

    def cut(files, source, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("connection reset")
        note(files, source, target)

    monkeypatch.setattr(remote_module, "AT_A_TIME", 1)
    monkeypatch.setattr(remote_module, "_copy", cut)
    with pytest.raises(UserError, match=r"cannot be copied to .*: connection reset"):
        local_copy(uri, tmp_path / "cache")
    left = 100
    local_copy(uri, tmp_path / "cache")
    assert len(copied) == len(set(copied)) + 18  # names repeat over four folders of six


@pytest.mark.parametrize("uri", ["file:///never/there", "carrier-pigeon://roof"])
def test_what_cannot_be_read_is_refused_in_one_line(uri, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.root .* (holds no files|cannot be copied)"):
        local_copy(uri, tmp_path)


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/data?access_key=a", "s3://us:key@bucket/data", "abfs://c@acc.dfs.core.windows.net/d?sv=1&sig=a",
     "gs://bucket/data?client_secret="],
)  # fmt: skip
def test_a_uri_with_credentials_is_refused(uri):
    with pytest.raises(UserError, match="must hold no credentials"):
        config(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/data?region=eu&endpoint_override=host:1",
        "gs://anonymous@bucket/data",
        "hdfs://me@name:1/data",
    ],
)
def test_a_uri_without_is_taken_as_it_is(uri):
    assert config(uri).root == uri
