import fcntl
import io
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from encoding import encode, parquet_table
from PIL import Image

import idm_ray
from idm_ray.data import draft, load_data, outline, outline_data
from idm_ray.data.build import CHUNK, build_store
from idm_ray.data.folders import find_folder
from idm_ray.data.locks import locked
from idm_ray.data.raw import Unfinished
from idm_ray.errors import UserError
from idm_ray.settings.sections import DatasetConfig

CPU = torch.device("cpu")
SIZE = 12
CHILD = """
import os, signal, sys
from pathlib import Path
from idm_ray.data import closing, draft
from idm_ray.data.build import build_store
from idm_ray.data.folders import find_folder
from idm_ray.data.locks import locked
from idm_ray.settings.sections import DatasetConfig

root, store, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls, fsync = 0, os.fsync

def counted(handle):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)

os.fsync = counted
draft.SYNC_SECONDS, closing.BATCH_BYTES = 0.0, 1000
found = find_folder(DatasetConfig(name="folder", root=root, image_size=12), store.parent, None)
with locked(store.with_name("lock")) as lock:
    build_store(store, "folder", found, "skip", None, 2, [lock])
print(calls)
"""


def settings(root: Path, **more) -> DatasetConfig:
    return DatasetConfig(**{"name": "folder", "root": root, "image_size": SIZE, "validation": 0, **more})


def load(root: Path, cache: Path, **more):
    return load_data(settings(root, **more), 0, CPU, cache)


def build(root: Path, store: Path, broken: str = "refuse", **more) -> dict[str, bytes]:
    store.parent.mkdir(parents=True, exist_ok=True)
    with locked(store.with_name("lock")) as lock:
        build_store(
            store, "folder", find_folder(settings(root), store.parent, None), broken, inherited=[lock], **more
        )
    return contents(store)


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def fill(root: Path, per_class: int = 150, broken: int = 0) -> Path:
    """Three classes of JPEGs, the first images of which are no images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", 3)):
        for name in ("ape", "bat", "cow"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(buffer, "JPEG")
                (folder / f"{number:03d}.jpg").write_bytes(buffer.getvalue())
        for number in range(min(broken, count - 1)):
            (root / split / "bat" / f"{number:03d}.jpg").write_text("no image")
    return root


class Told(list):
    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self.append((what, done, total, note))

    @property
    def images(self) -> list[int]:
        return [done for what, done, _, _ in self if what.startswith("build")]


class Stop(Exception):
    pass


def stop_at(images: int):
    def progress(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("build") and done >= images:
            raise Stop

    return progress


@pytest.mark.parametrize("broken", [0, 5])
def test_the_store_does_not_depend_on_the_number_of_processes(tmp_path, broken):
    root = fill(tmp_path / "set", broken=broken)
    stores = [build(root, tmp_path / str(count) / "store", "skip", processes=count) for count in (1, 3)]
    assert stores[0] == stores[1] == build(root, tmp_path / "here" / "store", "skip")


def test_an_interrupted_build_goes_on_where_it_was(tmp_path):
    root, store = fill(tmp_path / "set"), tmp_path / "store"
    with pytest.raises(Stop):
        build(root, store, progress=stop_at(3 * CHUNK), processes=2)
    assert not store.exists()
    told = Told()
    assert build(root, store, progress=told) == build(root, tmp_path / "other" / "store")
    assert told.images[0] >= 3 * CHUNK
    assert [path.name for path in tmp_path.iterdir() if "building" in path.name] == []


def test_the_lock_is_free_while_somebody_looks_at_the_error(tmp_path):
    root, store = fill(tmp_path / "set"), tmp_path / "store"
    try:
        build(root, store, progress=stop_at(CHUNK), processes=2)
    except Stop:
        build(root, store)
    assert store.exists()


def test_another_set_does_not_go_on_from_what_was_begun(tmp_path):
    first, second = fill(tmp_path / "first"), fill(tmp_path / "second", per_class=140)
    with pytest.raises(Stop):
        build(first, tmp_path / "store", progress=stop_at(CHUNK))
    told = Told()
    assert build(second, tmp_path / "store", progress=told) == build(second, tmp_path / "other" / "store")
    assert told.images[0] == 0


def test_parquet_goes_on_in_the_midst_of_its_files(tmp_path, make_parquet):
    made = make_parquet(counts=(90, 80, 70))
    wanted = load_data(DatasetConfig(name="parquet", root=made.root), 0, CPU, tmp_path / "other")
    config = DatasetConfig(name="parquet", root=made.root)
    with pytest.raises(Stop):
        load_data(config, 0, CPU, tmp_path / "cache", stop_at(2 * CHUNK))
    told = Told()
    assert load_data(config, 0, CPU, tmp_path / "cache", told).checksum == wanted.checksum
    assert told.images[0] >= 2 * CHUNK


def killed(root: Path, store: Path, fsyncs: int) -> int:
    """Kill a build with its n-th fsync; returns its exit code."""
    command = [sys.executable, "-c", CHILD, str(root), str(store), str(fsyncs)]
    return subprocess.run(command, cwd=Path(idm_ray.__file__).parents[1], check=False).returncode


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A set with broken images, and its store."""
    folder = tmp_path_factory.mktemp("spoilt")
    root = fill(folder / "set", per_class=60, broken=7)
    return root, build(root, folder / "store", "skip")


@pytest.mark.parametrize(
    "fsyncs", [1, 2, 3, 5, 8, 12, 20, 30, 40, 60, 80, 100, 116, 120, 123, 126, 127, 128, 129]
)
def test_a_kill_at_any_moment_costs_nothing_but_time(tmp_path, spoilt, fsyncs):
    root, undisturbed = spoilt
    if killed(root, tmp_path / "store", fsyncs) != -signal.SIGKILL:
        pytest.skip("the build takes fewer steps")
    assert build(root, tmp_path / "store", "skip") == undisturbed


def test_many_kills_in_a_row_come_to_an_end(tmp_path, spoilt):
    root, undisturbed = spoilt
    for _ in range(40):
        if killed(root, tmp_path / "store", 20) == 0:
            break
    assert contents(tmp_path / "store") == undisturbed


ORPHAN = """
import sys
from pathlib import Path
from idm_ray.data.chunks import Job, Chunk, decode_beside
from idm_ray.data.decode import decode_square
from idm_ray.data.locks import locked
from idm_ray.data.raw import Encoded
from idm_ray.data.rows import SplitFiles
from functools import partial

pipe, folder = Path(sys.argv[1]), Path(sys.argv[2])
job = Job(SplitFiles(folder, "train", (3, 8, 8)), partial(decode_square, size=8))
with locked(folder / "lock") as lock:
    chunks = (print("given", flush=True) or Chunk(n, (Encoded("pipe", pipe),), (0,)) for n in range(2))
    list(decode_beside(chunks, job, 1, [lock]))
"""


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_killed_build_is_over_only_when_its_processes_are(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / "pipe.png"), str(tmp_path)]
    child = subprocess.Popen(
        command, cwd=Path(idm_ray.__file__).parents[1], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "given\n"
    writer = os.open(tmp_path / "pipe.png", os.O_WRONLY)  # waits until the process reads
    child.kill()
    child.communicate()
    assert is_locked(tmp_path / "lock")
    os.close(writer)
    deadline = time.monotonic() + 20
    while is_locked(tmp_path / "lock"):
        assert time.monotonic() < deadline
    assert not (tmp_path / "train.pixels").exists()


def test_a_decoding_process_that_is_killed_is_one_line_and_nothing_is_lost(tmp_path):
    root, store = fill(tmp_path / "set"), tmp_path / "store"
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(listed.read_text().split())  # of other tests in this process

    def kill_one(what: str, done: int, total: int, note: str = "") -> None:
        if done == 2 * CHUNK:
            (decoding,) = set(listed.read_text().split()) - before
            os.kill(int(decoding), signal.SIGKILL)

    with pytest.raises(Unfinished, match=r"ended early \(exit code -9\).*start again"):
        build(root, store, progress=kill_one, processes=1)
    told = Told()
    build(root, store, progress=told)
    assert told.images[0] >= 2 * CHUNK


@pytest.mark.parametrize("count", [1, 3, 5])
def test_broken_images_are_refused_at_the_end_by_name(tmp_path, count):
    root = fill(tmp_path / "set", per_class=6, broken=count)
    broken = sorted((root / "train" / "bat").iterdir())[:count] + sorted((root / "val" / "bat").iterdir())[:2]
    broken = [path for path in broken if path.read_bytes() == b"no image"]
    with pytest.raises(UserError, match=r"dataset.broken=skip") as caught:
        load(root, tmp_path / "cache")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{len(broken)} images cannot be decoded")
    assert sum(str(path) in line for path in broken) == min(3, len(broken))
    (listed,) = (tmp_path / "cache").glob("*.building/broken.txt")
    assert listed.read_text().splitlines() == [f"{path} (no known image format)" for path in broken]
    assert (str(listed) in line) == (len(broken) > 3)


def test_broken_images_that_are_skipped_are_left_out_and_counted(tmp_path):
    root = fill(tmp_path / "set", per_class=6, broken=2)
    data = load(root, tmp_path / "cache", broken="skip")
    assert (data.left_out, data.train.counts, data.test.counts) == (4, (6, 4, 6), (3, 1, 3))
    for path in root.rglob("*.jpg"):
        if path.read_bytes() == b"no image":
            path.unlink()
    sound = load(root, tmp_path / "sound")
    assert sound.left_out == 0
    for split, other in ((data.train, sound.train), (data.test, sound.test)):
        assert images_of(split) == images_of(other)


def images_of(split) -> list[list[bytes]]:
    """The images of each class, in any order."""
    return [
        sorted(image.numpy().tobytes() for image in split.pixels[split.labels == label]) for label in range(3)
    ]


def test_skipping_goes_on_from_what_was_refused_and_refusing_refuses_what_was_skipped(tmp_path):
    root, cache = fill(tmp_path / "set", per_class=40, broken=2), tmp_path / "cache"
    with pytest.raises(UserError, match="4 images cannot be decoded"):
        load(root, cache)
    told = Told()
    load_data(settings(root, broken="skip"), 0, CPU, cache, told)
    assert told.images == [129]
    with pytest.raises(UserError, match=r"4 images cannot be decoded: .*bat/000.jpg \(no known"):
        load(root, cache)
    assert load(root, cache, broken="skip").left_out == 4


def test_a_class_without_a_sound_image_is_named(tmp_path):
    root = fill(tmp_path / "set", per_class=3)
    for path in (root / "train" / "cow").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"class cow has no training image without the broken ones"):
        load(root, tmp_path / "cache", broken="skip")


TRUNCATED = encode(np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8))[:90]
DEEP = encode(np.zeros((8, 6), np.uint16))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nothing", r"no known image format"),
        (TRUNCATED, r"truncated|chunk"),
        (None, r"it has no bytes"),
        (DEEP, r"8 bits per channel"),
    ],
)
def test_a_broken_row_of_parquet_is_named_or_left_out(tmp_path, make_parquet, data, reason):
    import pyarrow.parquet as pq

    made = make_parquet()
    table = parquet_table([data], [0], ("ant", "bee", "cat"))
    pq.write_table(table, made.root / "train-00000-of-00002.parquet")
    config = DatasetConfig(name="parquet", root=made.root, validation=0)
    with pytest.raises(UserError, match=rf"row 0 of .*train-00000.*({reason})"):
        load_data(config, 0, CPU, tmp_path / "cache")
    data = load_data(config.model_copy(update={"broken": "skip"}), 0, CPU, tmp_path / "cache")
    assert (data.left_out, data.shape) == (1, (3, 8, 6))


def test_a_wrong_extension_does_not_matter(tmp_path):
    root = fill(tmp_path / "set", per_class=3)
    image = np.full((SIZE, SIZE, 3), 7, np.uint8)
    (root / "train" / "ape" / "000.jpg").write_bytes(encode(image))
    assert (load(root, tmp_path / "cache").train.pixels[0] == 7).all()


def test_a_cache_without_room_says_how_much_is_needed_before_it_writes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(draft.shutil, "disk_usage", lambda path: usage)
    root = fill(tmp_path / "set", per_class=3)
    with pytest.raises(
        UserError, match=r"image store of \d+ kB needs room; .*cache has 1 kB left; set IDM_RAY_CACHE"
    ):
        load(root, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_progress_tells_size_and_speed(tmp_path):
    root, told = fill(tmp_path / "set", per_class=3), Told()
    load_data(settings(root), 0, CPU, tmp_path / "cache", told)
    assert told[0][3] == f"10 kB in {tmp_path / 'cache'}"
    assert "images/s, about 1 s for 10 kB" in told[2][3]


def link_to_a_file(root: Path, outside: Path) -> None:
    (root / "train" / "ape" / "999.jpg").symlink_to(outside / "image.jpg")


def link_to_a_class(root: Path, outside: Path) -> None:
    (root / "train" / "dog").symlink_to(outside)
    (root / "val" / "dog").symlink_to(outside)


@pytest.mark.parametrize("link", [link_to_a_file, link_to_a_class])
def test_a_link_that_leaves_the_root_is_refused(tmp_path, link):
    root, outside = fill(tmp_path / "set", per_class=3), tmp_path / "outside"
    outside.mkdir()
    (outside / "image.jpg").write_bytes((root / "train" / "ape" / "000.jpg").read_bytes())
    link(root, outside)
    with pytest.raises(
        UserError, match=r"links must not leave dataset.root; .* leads to .*outside/image.jpg"
    ):
        load(root, tmp_path / "cache")


def test_links_within_the_root_and_to_the_root_are_followed(tmp_path):
    root = fill(tmp_path / "set", per_class=3)
    (root / "train" / "ape" / "999.jpg").symlink_to(root / "train" / "ape" / "000.jpg")
    (tmp_path / "link").symlink_to(root)
    assert load(tmp_path / "link", tmp_path / "cache").train.counts == (4, 3, 3)


def test_an_outline_tells_size_and_place_of_the_store_and_what_room_is_missing(tmp_path, monkeypatch):
    root, cache = fill(tmp_path / "set", per_class=3), tmp_path / "new" / "cache"
    outline, ahead = outline_data(settings(root), cache)
    assert (outline.train, ahead.text) == ((3, 3, 3), f"builds an image store first: 10 kB in {cache}")
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(draft.shutil, "disk_usage", lambda path: usage)
    assert outline_data(settings(root), cache)[1].text.endswith("; only 1 kB are left, set IDM_RAY_CACHE")
    assert not cache.exists()


def test_an_outline_estimates_the_time_of_many_images(tmp_path, monkeypatch):
    root, slow = fill(tmp_path / "set", per_class=30), iter(range(1000))
    monkeypatch.setattr(outline.time, "perf_counter", lambda: next(slow) * 64.0)
    monkeypatch.setattr(outline, "usable_cores", lambda: 1)
    _, ahead = outline_data(settings(root), tmp_path / "cache")
    assert ahead.text.endswith(", about 2 min")
