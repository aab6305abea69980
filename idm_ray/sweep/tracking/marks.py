"""What MLflow's UI is told about the experiment: that it is model training, how to read it, what to show first."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient

from idm_ray.sweep.tracking.ui import TRIALS, VIEW_TAG, experiment_fragment

NOTE_TAG = "mlflow.note.content"
FACTS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "val_accuracy",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}
NOTE = """\
idm_ray logs runs, no traces: [open the trials, best first]({trials}), and choose *Model training* on the left once.

A sweep is a parent run with the sweep's name; its trials are its children. `val_accuracy` (percent, on a validation \
split held out of training) decides which trial is best; beside it stand the settings that the latest sweep searched.

- A trial: **Model metrics** has the losses and `val_accuracy` by iteration and the images as they evolve, \
**Artifacts** the condensed set.
- The parent: `report.html`, the best condensed set and the accuracy on test.
- The tag `idm_ray.state` tells how a trial ended, `idm_ray.reason` why it failed, `idm_ray.answered_by` which earlier \
trial has computed it.
- Select trials and press **Compare** for parallel coordinates, contours and scatter plots.
"""
ACCURACY = "metrics.`val_accuracy`"
STATE, SWEEP = "tags.`idm_ray.state`", "tags.`idm_ray.sweep_name`"
ALWAYS = {"attributes.`Run Name`": 130, "runDateAndNestInfo": 140}
"""Columns that the UI shows first whatever it is told; all widths are in pixels."""
WIDTH, SWEEP_WIDTH, LETTER_WIDTH, PADDING = 130, 190, 7, 25


def mark_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Say what the experiment is and how to read it, where nobody has said anything else."""
    tags = client.get_experiment(experiment_id).tags
    for key, value in FACTS.items():
        if key not in tags:
            client.set_experiment_tag(experiment_id, key, value)
    note, known = _signed(NOTE.format(trials=experiment_fragment(experiment_id))), tags.get(NOTE_TAG)
    if known != note and (known is None or _ours(known)):
        client.set_experiment_tag(experiment_id, NOTE_TAG, note)


def show_trials(client: MlflowClient, experiment_id: str, parent: str, searched: Sequence[str]) -> None:
    """Write two views of the runs: the trials of all sweeps, and those of one.

    Args:
        client: of the store.
        experiment_id: of the experiment, which keeps them.
        parent: run of the sweep; its view has this name in a link.
        searched: keys of the settings that it searches.
    """
    one = _view(f"tags.`mlflow.parentRunId` = '{parent}'", searched, {})
    every = _view("attributes.run_name LIKE 'trial %'", searched, {SWEEP: SWEEP_WIDTH})
    named = {"name": "Trials, best first", "createdAt": int(time.time() * 1000), "state": json.dumps(every)}
    client.set_experiment_tag(experiment_id, VIEW_TAG + parent, json.dumps(one))
    client.set_experiment_tag(experiment_id, VIEW_TAG + TRIALS, json.dumps(named))


def _view(query: str, searched: Sequence[str], last: Mapping[str, int]) -> dict[str, Any]:
    """What the UI keeps of a table: the filter, the order of rows, the columns and their widths."""
    settings = {f"params.`{key}`": LETTER_WIDTH * len(key) + PADDING for key in searched}
    chosen = {ACCURACY: WIDTH, **settings, STATE: WIDTH, **last}
    return {
        "searchFilter": query,
        "orderByKey": ACCURACY,
        "orderByAsc": False,
        "selectedColumns": list(chosen),
        "columnOrder": [*ALWAYS, *chosen],
        "columnWidths": {**ALWAYS, **chosen},
    }


def _signed(text: str) -> str:
    """The text with a mark that no reader sees, by which it is known as long as nobody edits it."""
    return f"{text}\n<!-- idm_ray {hashlib.sha256(text.encode()).hexdigest()[:12]} -->"


def _ours(note: str) -> bool:
    return note == _signed(note.rpartition("\n<!--")[0])
