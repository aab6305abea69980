"""Evaluations of a saved set in MLflow: a run for each net, and one for its alignment."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from idm_ray.evaluation import Alignment, Evaluation, NetRow
from idm_ray.settings.sections import Config
from idm_ray.sweep.tracking.store import find_experiment, one_attempt
from idm_ray.sweep.tracking.ui import EXPERIMENT, SQLITE


def log_evaluation(
    uri: str, folder: Path, config: Config, rows: Sequence[NetRow], alignment: Sequence[Alignment]
) -> None:
    """Record what was found about a condensed set.

    Args:
        uri: of the tracking store.
        folder: of the set.
        config: of the evaluation.
        rows: what it is worth on each net, beside random images under the same protocol; a run for each.
        alignment: consistency ratios, a curve over k in a run of its own.

    Raises:
        UserError: the store went away.
    """
    artifacts = Path(uri.removeprefix(SQLITE)).resolve().parent / "mlartifacts"
    with one_attempt(uri):
        client = MlflowClient(tracking_uri=uri)
        experiment = find_experiment(client, EXPERIMENT, artifacts if uri.startswith(SQLITE) else None)
        for row in rows:
            if row.condensed is None or row.random is None:
                continue  # the net does not fit the images
            params = {
                **_params(folder, config),
                "net": row.net.name,
                "epochs": row.condensed.epochs,
                "repeats": len(row.condensed.runs),
                **({"selected": row.condensed.selected} if row.condensed.selected else {}),
            }
            found = _metrics(row.condensed, row.random)
            metrics = [Metric(key, value, _now(), 0) for key, value in found.items()]
            _record(client, experiment, f"{folder.resolve().name} on {row.net.name}", params, metrics)
        if alignment:
            params = {
                **_params(folder, config),
                "net": config.net.name,
                "epochs": config.evaluate.whole_epochs,
                "repeats": len(alignment[0].runs),
            }
            curve = [
                Metric(key, value, _now(), each.k)
                for each in alignment
                for key, value in (("consistency_ratio", each.mean), ("consistency_ratio_std", each.std))
            ]
            _record(client, experiment, f"{folder.resolve().name} alignment", params, curve)


def _record(
    client: MlflowClient, experiment: str, name: str, params: Mapping[str, object], metrics: Sequence[Metric]
) -> None:
    run = client.create_run(experiment, run_name=name).info.run_id
    client.log_batch(run, metrics, [Param(key, str(value)) for key, value in params.items()])
    client.set_terminated(run)


def _now() -> int:
    """Milliseconds, as MLflow has them."""
    return int(time.time() * 1000)


def _params(folder: Path, config: Config) -> dict[str, object]:
    own = config.condense
    return {
        "set": str(folder.resolve()),
        "seed": config.seed,
        "method": own.method,
        "ipc": own.ipc,
        "partition": own.partition,
    }


def _metrics(condensed: Evaluation, random: Evaluation) -> dict[str, float]:
    metrics = {
        "test_accuracy_mean": condensed.mean,
        "test_accuracy_std": condensed.std,
        "random_accuracy_mean": random.mean,
        "random_accuracy_std": random.std,
        "seconds": condensed.seconds,
    }
    if condensed.interval:
        metrics["test_accuracy_low"], metrics["test_accuracy_high"] = condensed.interval
    return metrics
