"""Closing the gaps that broken images leave in the rows of a split."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_ray.data.draft import Draft, sync
from idm_ray.data.rows import SplitFiles, write_at

BATCH_BYTES = 1 << 26

Rows = NDArray[np.int64]


def close_gaps(draft: Draft, files: SplitFiles, labels: Rows) -> Rows:
    """Move rows so that none is missing, and cut the files off behind them.

    A class keeps its rows where it can: only as many as the gaps before its end go to its front, so that a million
    images with a few gaps take seconds. An interrupted move is gone on with.

    Args:
        draft: knows which rows are gaps.
        files: of the split.
        labels: of every row, ascending.

    Returns:
        Labels of the rows that are left.
    """
    gaps = np.array(sorted(broken.row for broken in draft.broken[files.name]), dtype=np.int64)
    if not len(gaps):
        return labels
    sources, targets = moves(labels, gaps)
    for path, row_bytes in files.row_bytes.items():
        while (start := draft.moved.get(path.name, 0)) < len(sources):
            aside = path.with_name(f"{path.name}.{start}")
            batch = sources[start : start + max(1, BATCH_BYTES // row_bytes)]
            draft.note_moved(path, _move(path, aside, row_bytes, batch, targets[start:]))
            aside.unlink()
        os.truncate(path, (len(labels) - len(gaps)) * row_bytes)
        sync(path)
    return np.delete(labels, gaps)


def moves(labels: Rows, gaps: Rows) -> tuple[Rows, Rows]:
    """Which rows go where, so that the rows of every class lie together again, in the order of classes.

    In this order no row is overwritten before it was moved.

    Args:
        labels: of every row, ascending.
        gaps: rows that are empty, ascending.
    """
    filled = np.delete(np.arange(len(labels)), gaps)
    sources, targets, start = [], [], 0
    for kept in np.split(filled, np.flatnonzero(np.diff(labels[filled])) + 1):
        end = start + len(kept)
        sources.append(kept[kept >= end])
        targets.append(np.setdiff1d(np.arange(start, end), kept, assume_unique=True))
        start = end
    return np.concatenate(sources), np.concatenate(targets)


def _move(path: Path, aside: Path, row_bytes: int, batch: Rows, targets: Rows) -> int:
    """Move rows by way of a file aside, from which it can be done again; returns how many that holds."""
    with path.open("r+b", buffering=0) as file:
        if not aside.exists():
            _copy(file.fileno(), aside, row_bytes, batch)
        count = aside.stat().st_size // row_bytes
        with aside.open("rb") as rows:
            for target in targets[:count]:
                write_at(file.fileno(), memoryview(rows.read(row_bytes)), int(target) * row_bytes)
    return count


def _copy(handle: int, aside: Path, row_bytes: int, rows: Rows) -> None:
    unfinished = aside.with_name(f"{aside.name}.copying")
    with unfinished.open("wb") as copy:
        for row in rows:
            copy.write(os.pread(handle, row_bytes, int(row) * row_bytes))
        copy.flush()
        os.fsync(copy.fileno())
    unfinished.rename(aside)
