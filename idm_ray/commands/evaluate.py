"""``idm-ray evaluate``: what a saved condensed set is worth."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from idm_ray.commands.arguments import command_line_layer
from idm_ray.commands.naming import SetName, output_dir
from idm_ray.errors import UserError
from idm_ray.runtime.invocation import NAME
from idm_ray.settings.layers import ANY_DEVICE, build_config
from idm_ray.settings.presets import NETS
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.registry.subject import Subject

SECTIONS = {"dataset", "net", "evaluate", "compute", "seed"}


@click.command("evaluate")
@click.argument("condensed", type=SetName(), metavar="SET")
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--repeats", type=int, help="nets to train")
@click.option("--epochs", type=int, help="epochs of each")
@click.option("--seed", type=int, help="root of all randomness")
@click.option("--nets", metavar="A,B", help=f"a row for each architecture, of {', '.join(NETS)}")
@click.option("--matrix", is_flag=True, help="expanded or not, equal epochs or equal steps, DSA or not")
@click.option(
    "--alignment",
    metavar="K,L",
    help="share of the k nearest training images that have the class, for each k, in features of nets trained on the "
    "whole training part for evaluate.whole_epochs",
)
@click.option(
    "--ranking", is_flag=True, help="DD-Ranking's scores, LRS and ARS; their nets are trained once and kept"
)
@click.option(
    "--weights",
    metavar="LAMBDA,GAMMA",
    help="of --ranking: of the improvement over random images in LRS, and of that with augmentation in ARS "
    "(0.5,0.5)",
)
@click.option(
    "--against", type=SetName(), metavar="OTHER_SET", help="paired comparison with another condensed set"
)
@output_dir
@click.option(
    "--mlflow",
    metavar="URI",
    help="also record a run for each net, the alignment and the ranking in this tracking store",
)
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON on standard output")
@click.option_panel("How", options=["--repeats", "--epochs", "--seed"])
@click.option_panel(
    "What else", options=["--nets", "--matrix", "--alignment", "--ranking", "--weights", "--against"]
)
@click.option_panel("Output", options=["--output-dir", "--mlflow", "--json", "--help"])
@click.pass_obj
def command(
    given: Sequence[str],
    /,
    condensed: str,
    overrides: Sequence[str],
    output_dir: Path | str,
    **options: Any,
) -> int:
    """Evaluate a condensed set: nets are trained on it alone and tried on test.

    SET is a folder with manifest.json, or what idm-ray sets lists: an ID, a name, or SWEEP/TRIAL. What is found about a
    set in --output-dir is noted there. Tables always have random images beside the set: as many, packed,
    expanded and trained on alike, with labels of the same teacher where these are soft. key=value is of dataset, net,
    evaluate or compute.

    \b
    idm-ray evaluate runs/digits/condensed
    idm-ray evaluate runs/digits/condensed --nets convnet,resnet18 --repeats 3
    idm-ray evaluate runs/digits/condensed --matrix
    idm-ray evaluate runs/digits/condensed --alignment 1,5,10
    idm-ray evaluate digits/7 --ranking
    idm-ray evaluate 3f2a9c1 --against champion
    """
    subject = Subject.of(condensed, output_dir)
    config = settle(subject, overrides, options)
    other = Subject.of(options["against"], output_dir) if options["against"] else None
    if other and config.evaluate.repeats < 2:
        raise UserError("--against compares net by net and needs at least 2; got --repeats 1")
    neighbours = _numbers(options["alignment"]) if options["alignment"] is not None else ()
    nets = _names(options["nets"]) if options["nets"] is not None else ()
    weights = _weights(options["weights"], options["ranking"])
    from idm_ray.commands.work import evaluate as work

    request = work.Request(
        subject,
        config,
        nets,
        options["matrix"],
        neighbours,
        weights,
        other,
        options["as_json"],
        output_dir,
        shlex.join([NAME, *given]),
    )
    return work.run(request, options["mlflow"])


def settle(subject: Subject, overrides: Sequence[str], options: dict[str, Any]) -> Config:
    """The settings that made the set, with those of the command line on top.

    Raises:
        UserError: a setting is refused.
    """
    layer: Raw = command_line_layer(overrides, {}, options["seed"])
    if set(layer) - SECTIONS:
        raise UserError(
            f"settings here are {', '.join(sorted(SECTIONS))}; got {', '.join(sorted(set(layer) - SECTIONS))}"
        )
    given = {key: options[key] for key in ("repeats", "epochs") if options[key] is not None}
    layer["evaluate"] = {**layer.get("evaluate", {}), **given}
    made_by = (subject.file, subject.manifest.config)
    return build_config(made_by, ("any machine", ANY_DEVICE), ("command line", layer))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in NETS]
    if unknown:
        raise UserError(f"nets are {', '.join(NETS)}; got {', '.join(map(repr, unknown))}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(number) for number in text.split(",")))
    except ValueError:
        raise UserError(f"--alignment takes whole numbers such as 1,5,10,50; got {text!r}") from None


def _weights(text: str | None, ranking: bool) -> tuple[float, float] | None:
    """Those of a ranking; None where none is asked for."""
    if text is not None and not ranking:
        raise UserError(f"--weights are those of --ranking; got --weights {text} alone; set --ranking, too")
    if not ranking:
        return None
    try:
        label, augmentation = (float(weight) for weight in (text or "0.5,0.5").split(","))
    except ValueError:
        raise UserError(f"--weights takes two numbers from 0 to 1, such as 0.5,0.5; got {text!r}") from None
    return label, augmentation
