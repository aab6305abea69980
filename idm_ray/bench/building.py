"""Part i: how fast an image store is built from photographs, by one process and by all."""

import io
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text, times
from idm_ray.runtime.cores import usable_cores
from idm_ray.runtime.words import size_text

WIDTH, HEIGHT = 500, 375
SIZES = (64, 224)
"""Sides of the stored images: one at which JPEGs are scaled down while they are decoded, and one at which not."""
DIFFERENT = 50
"""Photographs that are made; the others are copies under other names."""
BUILD = """
import json, os, sys, threading, time
from pathlib import Path
from idm_ray.data.build import build_store
from idm_ray.data.folders import find_folder
from idm_ray.settings.sections import DatasetConfig

root, store, size, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
peaks, seen = {}, {}

def watch():
    while True:
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in (str(os.getpid()), *children.read_text().split()):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                    peaks[pid] = int(status.split("VmHWM:")[1].split()[0]) * 1024
                except (OSError, IndexError):
                    pass
        time.sleep(0.02)

def progress(what, done, total, note=""):
    if what.startswith("build") and done <= total - 2:  # those of the test split are another few processes
        seen[done] = time.perf_counter()

threading.Thread(target=watch, daemon=True).start()
found = find_folder(DatasetConfig(name="folder", root=root, image_size=size), store.parent, None)
began = time.perf_counter()
build_store(store, "folder", found, progress=progress, processes=processes)
own = peaks.pop(str(os.getpid()))
print(json.dumps({"images": max(seen), "decoding": max(seen.values()) - min(seen.values()),
                  "seconds": time.perf_counter() - began, "own_peak_bytes": own,
                  "peak_bytes": max(peaks.values())}))
"""
"""A program that builds a store and tells its pace, and the most memory that it and its processes held (Linux)."""
NOTES = (
    f"Random images with the spectrum of photographs, JPEGs of {WIDTH}x{HEIGHT}, resized and cropped.",
    "images/s: from the start of the processes until all is decoded and written. whole: with the check sums. "
    "Peaks: of memory, of each process that decodes, and of the one that starts them (without torch).",
)


def measure(options: Options, say: Say) -> Result:
    """Stores of each size by one process and by as many as there are cores, in turn."""
    amounts, rows, measured = options.amounts, [], []
    with tempfile.TemporaryDirectory(prefix="idm_ray_bench_") as name:
        folder = Path(name)
        say(f"i: make {amounts.photographs} photographs")
        stored = _make(folder / "set", amounts.photographs)
        for size in SIZES:
            found = {1: [], usable_cores(): []}  # type: dict[int, list[dict[str, Any]]]
            for turn in range(amounts.builds):
                for processes, builds in found.items():
                    say(f"i: {size} pixels, {processes} processes, build {turn + 1} of {amounts.builds}")
                    builds.append(_build(folder, size, processes))
            rows += [_row(size, processes, builds, found[1]) for processes, builds in found.items()]
            measured += [
                {"size": size, "processes": processes, "builds": builds}
                for processes, builds in found.items()
            ]
    title = f"i. Building an image store of {amounts.photographs} photographs, {size_text(stored)}"
    columns = ("side", "processes", "images/s", "faster", "whole s", "peak MB", "its starter's MB")
    return Result((Table(title, columns, tuple(rows), NOTES),), {"width": WIDTH, "height": HEIGHT}, measured)


def photograph(rng: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A random image whose detail falls with its scale as in photographs."""
    pixels = np.full((height, width, 3), 128, dtype=np.float32)
    for cells, strength in ((8, 60), (32, 40), (96, 20), (400, 10)):
        for channel in range(3):
            coarse = rng.normal(0, strength, (cells * height // width + 1, cells + 1)).astype(np.float32)
            fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(fine)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _make(root: Path, count: int) -> int:
    """Write a set of two classes; returns its bytes."""
    rng, stored, files = np.random.default_rng(0), 0, []
    for _ in range(min(count, DIFFERENT)):
        buffer = io.BytesIO()
        photograph(rng).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    for number in range(count):
        split = "test" if number < 2 else "train"
        path = root / split / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored += path.write_bytes(files[number % len(files)])
    return stored


def _build(folder: Path, size: int, processes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [
            sys.executable,
            "-c",
            BUILD,
            str(folder / "set"),
            f"{place}/store",
            str(size),
            str(processes),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _row(
    size: int, processes: int, builds: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> tuple[str, ...]:
    rates, single = ([each["images"] / each["decoding"] for each in some] for some in (builds, alone))
    faster = statistics.median(rate / one for rate, one in zip(rates, single, strict=True))
    return (
        str(size),
        str(processes),
        f"{statistics.median(rates):.0f}",
        times(faster),
        text(statistics.median(each["seconds"] for each in builds)),
        f"{max(each['peak_bytes'] for each in builds) / 1e6:.0f}",
        f"{max(each['own_peak_bytes'] for each in builds) / 1e6:.0f}",
    )
