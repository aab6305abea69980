"""One condensation and its evaluation on the terminal."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.commands.condense import CHECKPOINT
from idm_ray.commands.terminal import EXIT_DIVERGED, deferred_interrupt, say, shown
from idm_ray.condensation import Condensation, condense
from idm_ray.data import Data
from idm_ray.evaluation import Protocol, check_random, counted, evaluate, full_protocol
from idm_ray.evaluation.prepare import fingerprint, prepare
from idm_ray.evaluation.references import reference
from idm_ray.runtime.compute import describe
from idm_ray.runtime.files import write_json
from idm_ray.runtime.progress import Progress
from idm_ray.runtime.states import read_state, write_state
from idm_ray.settings.sections import Config


def run(config: Config, out: Path, resume: bool, evaluation: bool, as_json: bool) -> int:
    """Condense, save, evaluate; returns the exit code.

    Raises:
        UserError: data, or a checkpoint, that do not fit; before anything is computed.
        KeyboardInterrupt: on Ctrl-C; what is in `out` can be gone on with.
    """
    console = Console(stderr=as_json)
    with shown(console) as progress:
        data, compute = prepare(config, progress, verify=True)
        _check(config, data, evaluation)
        condensation = condense(config, data, compute, keep=KeptTrainings())
        mark = fingerprint(config, data)
        if resume and (saved := read_state(out / CHECKPOINT, mark)):
            condensation.load_state(saved[0])
            say(console, f"going on after iteration {condensation.iteration}")
        say(console, f"{config.condense.method} on {data.name}, {describe(compute)}")
        began = time.monotonic()
        lost = _condense(
            config, condensation, out / CHECKPOINT, mark, progress, lambda line: say(console, line)
        )
        if lost:
            say(console, lost, "red")
            return EXIT_DIVERGED
        result: dict[str, object] = {
            "iterations": condensation.iteration,
            "seconds": round(time.monotonic() - began, 3),
            "device": describe(compute),
        }
        condensed = condensed_set(
            condensation.images, condensation.labels, config, data, condensation.iteration
        )
        save_condensed(out / "condensed", condensed)
        say(console, f"condensed set: {out / 'condensed'}")
        if evaluation:
            result |= _evaluate(config, condensation, full_protocol(config, data, compute), progress, console)
    write_json(out / "result.json", result)
    if as_json:
        print(json.dumps(result, indent=2))
    return 0


def _check(config: Config, data: Data, evaluation: bool) -> None:
    """Refuse references that cannot be drawn, while nothing is lost by it."""
    if evaluation and "random" in config.evaluate.references:
        check_random(data.outline, config.condense.ipc, 1)


def _condense(
    config: Config,
    condensation: Condensation,
    checkpoint: Path,
    mark: str,
    progress: Progress,
    tell: Callable[[str], None],
) -> str:
    """Run to the end, saving now and then; returns why it is lost, if it is."""
    shown_every, note = max(1, condensation.iterations // 200), ""
    with deferred_interrupt() as interrupted:
        for record in condensation:
            progress("condense", record.iteration - 1, condensation.iterations, note)
            if record.iteration % shown_every == 0 or record.iteration == condensation.iterations:
                loss = float(record.total)
                if not math.isfinite(loss):
                    return f"diverged: the loss is {loss} at iteration {record.iteration}; lower condense.lr"
                note = f"loss {loss:.3g}, net accuracy {float(record.accuracy):.2f}"
                progress("condense", record.iteration, condensation.iterations, note)
            if record.iteration % config.evaluate.every == 0 or interrupted():
                if not _finite(condensation):
                    return f"diverged: S is not finite after iteration {record.iteration}; lower condense.lr"
                write_state(checkpoint, condensation.state(), mark)
            if interrupted():
                tell(f"stopped after iteration {record.iteration}; go on with --resume")
                raise KeyboardInterrupt
    if not _finite(condensation):
        return f"diverged: S is not finite after iteration {condensation.iteration}; lower condense.lr"
    write_state(checkpoint, condensation.state(), mark)
    return ""


def _finite(condensation: Condensation) -> bool:
    return bool(torch.isfinite(condensation.images).all())


def _evaluate(
    config: Config, condensation: Condensation, protocol: Protocol, progress: Progress, console: Console
) -> dict[str, object]:
    tick = counted(progress, "evaluate on test", protocol)
    partition = config.condense.partition
    evaluation = evaluate(condensation.images, condensation.labels, partition, protocol, tick)
    result: dict[str, object] = {"test_accuracy_mean": evaluation.mean, "test_accuracy_std": evaluation.std}
    result["test_accuracy_runs"] = evaluation.runs
    say(console, f"test accuracy {evaluation.text}")
    for kind in config.evaluate.references:
        own = protocol
        if kind == "whole":
            own = replace(protocol, epochs=config.evaluate.whole_epochs)
            say(
                console,
                f"whole reference: {own.epochs} epochs over {len(protocol.data.train)} images for each net",
            )
        known = reference(kind, protocol, on_epoch=counted(progress, f"{kind} reference", own))
        result[f"{kind}_accuracy_mean"] = known.mean
        say(console, f"{kind} reference {known.text}")
    return result
