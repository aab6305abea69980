"""One condensation and its evaluation, without Ray and MLflow: python scripts/condense.py CONFIG --out DIR."""

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.commands.terminal import deferred_interrupt, epoch_progress, main, progress_bars, store_progress
from idm_ray.condensation import Condensation, condense
from idm_ray.errors import UserError
from idm_ray.evaluation import Protocol, evaluate, full_protocol
from idm_ray.evaluation.prepare import fingerprint, prepare
from idm_ray.evaluation.references import reference
from idm_ray.runtime.compute import describe
from idm_ray.runtime.files import check_out, read_state, write_json, write_state
from idm_ray.settings.layers import build_config, parse_overrides, read_yaml
from idm_ray.settings.sections import Config


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument(
        "config", metavar="CONFIG", help="YAML file; its search and sweep sections are not read"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument(
        "--out", type=Path, required=True, help="folder for the condensed set and result.json"
    )
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    command.add_argument("--no-evaluation", action="store_true", help="condense only")
    command.add_argument("--json", action="store_true", help="print result.json on standard output")
    return command


def run(arguments: list[str]) -> int:
    """Condense, save, evaluate; returns the exit code."""
    parsed = parser().parse_intermixed_args(arguments)
    layers = (
        (parsed.config, read_yaml(Path(parsed.config))),
        ("command line", parse_overrides(parsed.overrides)),
    )
    config = build_config(*layers, ("scripts/condense.py", {"search": {}}))
    checkpoint = parsed.out / "checkpoint.safetensors"
    check_out(parsed.out, parsed.resume)
    if parsed.resume and not checkpoint.exists():
        raise UserError(f"there is no checkpoint in {parsed.out}; start without --resume")
    console = Console(stderr=parsed.json)
    data, compute = prepare(config, store_progress(console), verify=True)
    condensation = condense(config, data, compute, keep=KeptTrainings())
    mark = fingerprint(config, data)
    if parsed.resume and (saved := read_state(checkpoint, mark)):
        condensation.load_state(saved[0])
        console.print(f"going on after iteration {condensation.iteration}", highlight=False)
    console.print(f"{config.condense.method} on {data.name}, {describe(compute)}", highlight=False)
    began = time.monotonic()
    with progress_bars(console) as progress:
        _condense(config, condensation, checkpoint, mark, progress)
    result: dict[str, object] = {
        "iterations": condensation.iteration,
        "seconds": round(time.monotonic() - began, 3),
        "device": describe(compute),
    }
    condensed = condensed_set(condensation.images, condensation.labels, config, data, condensation.iteration)
    save_condensed(parsed.out / "condensed", condensed)
    console.print(f"condensed set: {parsed.out / 'condensed'}")
    if not parsed.no_evaluation:
        result |= _evaluate(config, condensation, full_protocol(config, data, compute), console)
    write_json(parsed.out / "result.json", result)
    if parsed.json:
        print(json.dumps(result, indent=2))
    return 0


def _condense(
    config: Config, condensation: Condensation, checkpoint: Path, mark: str, progress: Progress
) -> None:
    task = progress.add_task("condense", total=condensation.iterations, completed=condensation.iteration)
    shown = max(1, condensation.iterations // 200)
    with deferred_interrupt() as interrupted:
        for record in condensation:
            if record.iteration % shown == 0:
                text = f"condense  loss {float(record.total):.3g}  net accuracy {float(record.accuracy):.2f}"
                progress.update(task, completed=record.iteration, description=text)
            if record.iteration % config.evaluate.every == 0 or interrupted():
                write_state(checkpoint, condensation.state(), mark)
            if interrupted():
                progress.console.print(f"stopped after iteration {record.iteration}; go on with --resume")
                raise KeyboardInterrupt
    write_state(checkpoint, condensation.state(), mark)


def _evaluate(
    config: Config, condensation: Condensation, protocol: Protocol, console: Console
) -> dict[str, object]:
    with progress_bars(console) as progress:
        tick = epoch_progress(progress, "evaluate on test", protocol)
        partition = config.condense.partition
        evaluation = evaluate(condensation.images, condensation.labels, partition, protocol, tick)
    result: dict[str, object] = {"test_accuracy_mean": evaluation.mean, "test_accuracy_std": evaluation.std}
    result["test_accuracy_runs"] = evaluation.runs
    console.print(f"test accuracy {evaluation.text}", highlight=False)
    for kind in config.evaluate.references:
        with progress_bars(console) as progress:
            known = reference(
                kind, protocol, on_epoch=epoch_progress(progress, f"{kind} reference", protocol)
            )
        result[f"{kind}_accuracy_mean"] = known.mean
        console.print(f"{kind} reference {known.text}", highlight=False)
    return result


if __name__ == "__main__":
    sys.exit(main(run))
