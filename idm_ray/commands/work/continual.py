"""Continual learning on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from idm_ray.commands.terminal import deferred_interrupt, resuming, say, shown
from idm_ray.commands.work import tables
from idm_ray.errors import UserError
from idm_ray.evaluation import class_steps
from idm_ray.evaluation.memories import Memories, precision_of
from idm_ray.evaluation.prepare import prepare
from idm_ray.runtime.compute import describe
from idm_ray.runtime.files import write_json
from idm_ray.settings.sections import Config


def run(
    config: Config, steps: int, seeds: int, out: Path, resume: bool, as_json: bool, given: Sequence[str]
) -> int:
    """Condense and learn step by step, print; returns the exit code.

    Args:
        config: nothing is searched.
        steps: into which the classes are divided.
        seeds: class orders.
        out: folder for memories and result.json.
        resume: go on with what is there.
        as_json: print the result on standard output.
        given: the words that asked for it, to go on with.

    Raises:
        UserError: data that do not fit.
        KeyboardInterrupt: on Ctrl-C; what is in `out` is whole and can be resumed.
    """
    console = Console(stderr=as_json)
    with shown(console) as progress:
        if resume and config.compute.precision == "auto" and (kept := precision_of(out)):
            compute_as_before = config.compute.model_copy(update={"precision": kept})
            config = config.model_copy(update={"compute": compute_as_before})
        data, compute = prepare(config, progress, verify=True)
        class_steps(data.num_classes, steps, config.seed)
        if not all(data.test.counts):
            raise UserError(
                f"continual learning is tried on test images of every class, but "
                f"{data.class_names[data.test.counts.index(0)]!r} has none"
            )
        with deferred_interrupt() as interrupted:
            memories = Memories(config, data, compute, steps, out, progress, interrupted)
            if resume:
                memories.check()
            say(console, f"{config.condense.method} on {data.name}, {describe(compute)}")
            try:
                runs = memories.learn(range(config.seed, config.seed + seeds))
            except KeyboardInterrupt:
                say(console, f"stopped; go on with: {resuming(given)}")
                raise
    tables.show_continual(runs, console)
    result = {
        "method": config.condense.method,
        "device": describe(compute),
        "seeds": list(range(config.seed, config.seed + seeds)),
        "orders": [[list(step.classes) for step in steps] for steps in runs],
        "steps": tables.plain_continual(runs),
    }
    write_json(out / "result.json", result)
    if as_json:
        print(json.dumps(result, indent=2))
    return 0
