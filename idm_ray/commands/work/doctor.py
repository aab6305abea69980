"""What is found of a machine, on the terminal, as it is found."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from idm_ray.commands.terminal import EXIT_BAD_INPUT, say, shown
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.words import plural
from idm_ray.settings.sections import Config
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.examine import examine
from idm_ray.sweep.health.finding import Finding

STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}
SUBJECT_LETTERS = 14


def run(config: Config, given: Sequence[str], as_json: bool) -> int:
    """Examine this machine; returns the exit code.

    Args:
        config: of the sweep that it is examined for.
        given: the words that ``idm-ray`` was called with.
        as_json: print the findings when all are there, and as JSON.
    """
    console, findings = Console(), list[Finding]()
    with shown(Console(stderr=True), quiet=as_json) as progress:
        for finding in examine(Case(config, progress)):
            findings.append(finding)
            if not as_json:
                console.print(_line(finding), soft_wrap=True, highlight=False)
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    if as_json:
        print(json.dumps({"starts": not wrong, "findings": [asdict(each) for each in findings]}, indent=2))
    elif wrong:
        say(console, f"a sweep would not start: {plural(wrong, 'thing')} to mend", "bold red")
    else:
        say(console, f"a sweep would start: {command_line('sweep', *given[1:])}", "green")
    return EXIT_BAD_INPUT if wrong else 0


def _line(finding: Finding) -> Text:
    mend = f"; {finding.mend}" if finding.mend else ""
    return Text.assemble(
        (f"{finding.verdict:5}", STYLES[finding.verdict]),
        f"  {finding.subject:{SUBJECT_LETTERS}}  {' '.join(finding.text.split())}{mend}",
    )
