import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import idm_ray
from idm_ray.data import load_data, open_store
from idm_ray.data.store import StoreError
from idm_ray.errors import UserError
from idm_ray.settings.sections import DatasetConfig

CPU = torch.device("cpu")
SETTINGS = DatasetConfig(name="digits")
FILES = {"train.pixels", "train.arrow", "test.pixels", "test.arrow"}
CHILD = """
import sys
from pathlib import Path
import torch
from idm_ray.settings.sections import DatasetConfig
from idm_ray.data import load_data

def tell(*_):
    print("building", flush=True)
    sys.stdin.readline()

print("ready", flush=True)
data = load_data(DatasetConfig(name="digits"), 0, torch.device("cpu"), Path(sys.argv[1]), tell)
print(data.checksum, flush=True)
"""


def load(cache: Path, **more):
    return load_data(SETTINGS, 0, CPU, cache, **more)


def store_folder(cache: Path) -> Path:
    (folder,) = (path for path in cache.iterdir() if path.name.startswith("digits-"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Calls(list):
    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self.append((what, done, total))


def start_child(cache: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache)],
        cwd=Path(idm_ray.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_second_load_opens_what_the_first_built(cache):
    built, opened = Calls(), Calls()
    first, second = load(cache, progress=built), load(cache, progress=opened)
    images = [call for call in built if call[0] == "build digits"]
    assert (images[0], images[-1]) == (("build digits", 0, 1797), ("build digits", 1797, 1797))
    assert [done for _, done, _ in images] == sorted(done for _, done, _ in images)
    assert opened == []
    assert first.checksum == second.checksum


def test_the_same_images_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        load(tmp_path / name)
    first, second = (store_folder(tmp_path / name) for name in ("a", "b"))
    assert first.name == second.name
    assert contents(first) == contents(second)
    assert set(contents(first)) == FILES | {"store.json"}


def test_arrow_reads_one_batch_with_labels_and_sums_of_the_pixels_beside_it(cache):
    load(cache)
    batches = pa.ipc.open_file(pa.memory_map(str(store_folder(cache) / "train.arrow")))
    assert batches.num_record_batches == 1
    batch = batches.get_batch(0)
    assert batch.schema.names == ["label", "pixel_sum", "pixel_square_sum"]
    images = np.fromfile(store_folder(cache) / "train.pixels", np.uint8).reshape(len(batch), 64)
    assert batch.column("pixel_sum").to_pylist() == images.sum(1, dtype=int)[:, None].tolist()
    squares = (images.astype(int) ** 2).sum(1)[:, None]
    assert batch.column("pixel_square_sum").to_pylist() == squares.tolist()
    assert batch.column("label").to_pylist() == sorted(batch.column("label").to_pylist())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_training_and_validation_share_the_memory_map(cache):
    data = load(cache)
    address = data.train.pixels.data_ptr()
    assert data.validation.pixels.data_ptr() == address
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (name,) = (
        line[-1]
        for line in maps
        if int(line[0].split("-")[0], 16) <= address < int(line[0].split("-")[1], 16)
    )
    assert name == str(store_folder(cache) / "train.pixels")


def cut(folder: Path) -> None:
    os.truncate(folder / "train.pixels", 1000)


def cut_table(folder: Path) -> None:
    os.truncate(folder / "train.arrow", 1000)


def no_json(folder: Path) -> None:
    (folder / "store.json").write_text("{")


def no_file(folder: Path) -> None:
    (folder / "test.arrow").unlink()


def other_names(folder: Path) -> None:
    manifest = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**manifest, "class_names": ["x"] * 10}))


def other_format(folder: Path) -> None:
    (folder / "store.json").write_text(json.dumps({"format": 0}))


def no_magic(folder: Path) -> None:
    path = folder / "train.arrow"
    path.write_bytes(path.read_bytes()[:-10] + b"\0" * 10)


def flip_a_bit(folder: Path) -> None:
    path = folder / "train.pixels"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [cut, cut_table, no_json, no_file, other_names, other_format, no_magic])
def test_a_damaged_store_is_noticed_and_built_anew(cache, spoil):
    load(cache)
    folder = store_folder(cache)
    sound = contents(folder)
    spoil(folder)
    with pytest.raises(StoreError):
        open_store(folder)
    load(cache)
    assert contents(folder) == sound


def test_verifying_notices_a_flipped_bit_and_builds_anew(cache):
    load(cache)
    folder = store_folder(cache)
    sound, calls = contents(folder), Calls()
    flip_a_bit(folder)
    open_store(folder)
    load(cache, verify=True, progress=calls)
    assert contents(folder) == sound
    assert "check train.pixels" in {what for what, _, _ in calls}
    assert "build digits" in {what for what, _, _ in calls}


def test_verifying_a_sound_store_builds_nothing(cache):
    load(cache)
    calls = Calls()
    load(cache, verify=True, progress=calls)
    assert {what for what, _, _ in calls} == {f"check {file}" for file in FILES}


def test_other_images_are_another_store(cache, make_parquet):
    made = make_parquet()
    settings = DatasetConfig(name="parquet", root=made.root)
    first = load_data(settings, 0, CPU, cache)
    make_parquet(seed=1)
    second = load_data(settings, 0, CPU, cache)
    assert first.checksum != second.checksum
    assert len([path for path in cache.iterdir() if path.name.startswith("parquet-")]) == 2


def test_the_key_follows_the_content_and_not_the_place(cache, make_parquet, tmp_path):
    made = make_parquet()
    shutil.copytree(made.root, tmp_path / "copy")
    for root in (made.root, tmp_path / "copy"):
        load_data(DatasetConfig(name="parquet", root=root), 0, CPU, cache)
    assert len([path for path in cache.iterdir() if path.name.startswith("parquet-")]) == 1


def test_another_image_size_is_another_store(cache, make_folder):
    root = make_folder()
    shapes = [
        load_data(DatasetConfig(name="folder", root=root, image_size=size), 0, CPU, cache).shape
        for size in (8, 12)
    ]
    assert shapes == [(3, 8, 8), (3, 12, 12)]


def test_processes_that_start_together_build_once(cache):
    builder = start_child(cache)
    assert builder.stdout.readline() == "building\n"
    waiting = start_child(cache)
    builder_output, _ = builder.communicate("\n" * 100)
    waiting_output, _ = waiting.communicate("\n" * 100)
    assert waiting_output.splitlines() == builder_output.splitlines()[-1:]
    assert [path.name for path in cache.iterdir()] == [store_folder(cache).name]


def test_after_a_killed_build_the_next_one_leaves_the_store_alone(cache, tmp_path):
    child = start_child(cache)
    assert child.stdout.readline() == "building\n"
    child.kill()
    child.communicate()
    assert any(path.name.endswith(".building") for path in cache.iterdir())
    assert load(cache).checksum == load(tmp_path / "other").checksum
    assert [path.name for path in cache.iterdir()] == [store_folder(cache).name]


@contextlib.contextmanager
def largest_file(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [5_000, 50_000])
def test_a_cache_without_room_is_one_line_and_leaves_nothing(cache, size):
    with largest_file(size), pytest.raises(UserError, match=r"cache folder .* set IDM_RAY_CACHE"):
        load(cache)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache folder must be writable .*file/cache: Not a directory"):
        load(tmp_path / "file" / "cache")


def test_a_large_file_is_read_once_to_see_whether_it_is_whole_and_again_when_it_has_changed(
    tmp_path, monkeypatch, request
):
    from idm_ray.data import store

    monkeypatch.setattr(store, "LARGE", 0)
    file, reads = tmp_path / "train.pixels", []
    file.write_bytes(b"pixels")
    monkeypatch.setattr("idm_ray.data.digests.sha256", lambda path, progress: reads.append(path) or "0" * 64)
    for _ in range(2):
        assert store._digest(file, tmp_path, None) == "0" * 64
    assert len(reads) == 1
    file.write_bytes(b"pixelt")
    store._digest(file, tmp_path, None)
    assert len(reads) == 2
