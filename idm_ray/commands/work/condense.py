"""One condensation and its evaluation on the terminal."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.artifacts.manifest import read_manifest
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.commands.condense import CHECKPOINT
from idm_ray.commands.terminal import EXIT_DIVERGED, deferred_interrupt, resuming, say, shown
from idm_ray.condensation import Condensation, Diverged, condense
from idm_ray.data import Data
from idm_ray.evaluation import Protocol, check_random, counted, evaluate, full_protocol
from idm_ray.evaluation.forecast import settled
from idm_ray.evaluation.prepare import fingerprint, prepare
from idm_ray.evaluation.references import reference
from idm_ray.runtime.compute import Compute, describe, resolve
from idm_ray.runtime.files import write_json
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.memory import room
from idm_ray.runtime.progress import Progress
from idm_ray.runtime.states import read_note, read_state, write_state
from idm_ray.settings.sections import Config


def run(
    config: Config, note: str, out: Path, resume: bool, evaluation: bool, as_json: bool, given: Sequence[str]
) -> int:
    """Condense, save, evaluate; returns the exit code.

    Args:
        config: nothing is searched.
        note: said first, unless it is empty.
        out: folder for the set and result.json.
        resume: go on from the checkpoint there.
        evaluation: also evaluate the set.
        as_json: print the result on standard output.
        given: the words that asked for it, to go on with.

    Raises:
        UserError: data, or a checkpoint, that do not fit; before anything is computed.
        KeyboardInterrupt: on Ctrl-C; what is in `out` can be gone on with.
    """
    console = Console(stderr=as_json)
    with shown(console) as progress:
        kept = json.loads((resume and read_note(out / CHECKPOINT)) or "{}")
        config = _with_precision(config, kept)
        data, compute = prepare(config, progress, verify=True)
        _check(config, data, evaluation)
        mark = fingerprint(config, data)
        saved = read_state(out / CHECKPOINT, mark) if resume else None
        compute = _settled(config, data, compute, kept)
        first = _FirstNets(progress)
        condensation = condense(config, data, compute, keep=KeptTrainings(), tell=first)
        if saved:
            condensation.load_state(saved[0])
            say(console, f"going on after iteration {condensation.iteration}")
        say(console, f"{config.condense.method} on {data.name}, {describe(compute)}")
        if note:
            say(console, note)
        facts = {"chunk": compute.most, "precision": config.compute.precision}
        clock = _Clock(float(kept.get("seconds", 0.0)) if saved else 0.0)
        try:
            _condense(config, condensation, out / CHECKPOINT, mark, facts, clock, progress, first)
            teaching = condensation.teaching
        except KeyboardInterrupt:
            how = resuming(given) if (out / CHECKPOINT).exists() else command_line(*given)
            say(console, f"stopped after iteration {condensation.iteration}; go on with: {how}")
            raise
        except Diverged as error:
            kept = f"; {out / CHECKPOINT} has the state before" if (out / CHECKPOINT).exists() else ""
            say(console, f"diverged: {error}{kept}", "red")
            return EXIT_DIVERGED
        result: dict[str, object] = {
            "iterations": condensation.iteration,
            "seconds": round(clock.seconds, 3),
            "device": describe(compute),
            "chunk": compute.most,
        }
        condensed = condensed_set(
            condensation.images,
            condensation.labels,
            config,
            data,
            condensation.iteration,
            teaching,
        )
        save_condensed(out / "condensed", condensed)
        result["set"] = read_manifest(out / "condensed").id
        say(console, f"condensed set: {out / 'condensed'}")
        if evaluation:
            result |= _evaluate(config, condensation, full_protocol(config, data, compute), progress, console)
        result["ended"] = round(time.time(), 3)
    write_json(out / "result.json", result)
    if as_json:
        print(json.dumps(result, indent=2))
    return 0


class _FirstNets:
    """Tells how far the work is on which the rest waits, such as training nets, and ends it on Ctrl-C."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self.interrupted: Callable[[], bool] = lambda: False

    def __call__(self, what: str, done: int, total: int) -> None:
        self._progress(what, done, total)
        if self.interrupted():
            raise KeyboardInterrupt


class _Clock:
    """Seconds of a condensation, those before it was resumed included."""

    def __init__(self, before: float):
        self._began = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.monotonic() - self._began


def _with_precision(config: Config, kept: Mapping[str, Any]) -> Config:
    """With the precision that is set, else that of the checkpoint that is gone on from, else this machine's."""
    compute = config.compute
    if compute.precision == "auto":
        before = kept.get("precision", resolve(compute).precision)
        compute = compute.model_copy(update={"precision": before})
    return config.model_copy(update={"compute": compute})


def _settled(config: Config, data: Data, compute: Compute, kept: Mapping[str, Any]) -> Compute:
    """With the chunk that the settings name, else that of the checkpoint that is gone on from, else what fits."""
    if compute.most is None and kept.get("chunk") is not None:
        return replace(compute, most=kept["chunk"])
    return settled(config, data.outline, compute, room(compute.device, config.sweep.gpu_share))


def _check(config: Config, data: Data, evaluation: bool) -> None:
    """Refuse references that cannot be drawn, while nothing is lost by it."""
    if evaluation and "random" in config.evaluate.references:
        check_random(data.outline, config.condense.ipc)


def _condense(
    config: Config,
    condensation: Condensation,
    checkpoint: Path,
    mark: str,
    facts: Mapping[str, Any],
    clock: "_Clock",
    progress: Progress,
    first: "_FirstNets",
) -> None:
    """Run to the end, saving now and then, with facts to keep and the seconds until then.

    Raises:
        Diverged: what is saved is of before.
        KeyboardInterrupt: on Ctrl-C, between two iterations and saved, or between two epochs of nets that are trained
            first and kept.
    """

    def save() -> None:
        condensation.finite_images()
        kept = json.dumps({**facts, "seconds": clock.seconds})
        write_state(checkpoint, condensation.state(), mark, kept)

    total, note = condensation.iterations, ""
    looks = max(1, total // 200)  # at the loss, which waits for a CUDA device
    with deferred_interrupt() as interrupted:
        first.interrupted = interrupted
        for record in condensation:
            if record.iteration % looks == 0 or record.iteration == total:
                note = f"loss {float(record.total):.3g}, net accuracy {float(record.accuracy):.2f}"
            progress("condense", record.iteration, total, note)
            stop = interrupted()
            if stop or record.iteration % config.evaluate.every == 0:
                save()
            if stop:
                raise KeyboardInterrupt
    save()


def _evaluate(
    config: Config, condensation: Condensation, protocol: Protocol, progress: Progress, console: Console
) -> dict[str, object]:
    tick = counted(progress, "evaluate on test", protocol)
    partition = config.condense.partition
    images, teaching, teacher = condensation.images, condensation.teaching, condensation.teacher
    evaluation = evaluate(images, teaching, partition, protocol, tick, teacher)
    result: dict[str, object] = {"test_accuracy_mean": evaluation.mean, "test_accuracy_std": evaluation.std}
    result["test_accuracy_runs"] = evaluation.runs
    if evaluation.selected:
        result["test_accuracy_selected"] = evaluation.selected
    say(console, f"test accuracy {evaluation.text}")
    for kind in config.evaluate.references:
        own = protocol
        if kind == "whole":
            own = replace(protocol, epochs=config.evaluate.whole_epochs)
            say(
                console,
                f"whole reference: {own.epochs} epochs over {len(protocol.data.train)} images for each net",
            )
        known = reference(kind, protocol, None, counted(progress, f"{kind} reference", own), teacher)
        result[f"{kind}_accuracy_mean"] = known.mean
        say(console, f"{kind} reference {known.text}")
    return result
