"""Evaluations of a saved set in MLflow: a run for each net, one for its alignment, and one for its ranking."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from idm_ray.evaluation import Alignment, Evaluation, NetRow
from idm_ray.evaluation.ranking import Ranking, Training
from idm_ray.settings.sections import Config
from idm_ray.sweep.tracking.store import find_experiment, one_attempt
from idm_ray.sweep.tracking.ui import EXPERIMENT, SQLITE


def log_evaluation(
    uri: str,
    folder: Path,
    config: Config,
    rows: Sequence[NetRow],
    alignment: Sequence[Alignment],
    ranking: Ranking | None = None,
) -> None:
    """Record what was found about a condensed set.

    Args:
        uri: of the tracking store.
        folder: of the set.
        config: of the evaluation.
        rows: what it is worth on each net, beside random images under the same protocol; a run for each.
        alignment: consistency ratios, a curve over k in a run of its own.
        ranking: DD-Ranking's scores and what they are made of, in a run of its own; None for none.

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
        if ranking:
            params = {
                **_params(folder, config),
                "net": config.net.name,
                "epochs": config.evaluate.epochs,
                "repeats": len(ranking.improvement.runs),
                "lambda": ranking.weights.label,
                "gamma": ranking.weights.augmentation,
            }
            metrics = [Metric(key, value, _now(), 0) for key, value in _scores(ranking).items()]
            _record(client, experiment, f"{folder.resolve().name} ranking", params, metrics)


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


def _scores(ranking: Ranking) -> dict[str, float]:
    """Scores in 0..100, differences in percentage points, and accuracies in percent."""
    figures = {
        "label_robust_score": ranking.label_robust,
        "augmentation_robust_score": ranking.augmentation_robust,
        "hard_label_recovery": ranking.recovery,
        "improvement_over_random": ranking.improvement,
        "improvement_over_random_plain": ranking.plain_improvement,
    }
    accuracies = {
        f"{_named(training)}_mean": evaluation.mean for training, evaluation in ranking.trained.items()
    }
    return {
        **{f"{name}_mean": figure.mean for name, figure in figures.items()},
        **{f"{name}_std": figure.std for name, figure in figures.items()},
        **accuracies,
    }


def _named(training: Training) -> str:
    soft, plain = "_soft" * training.soft, "_plain" * (not training.augmented)
    return f"{training.images}_accuracy{soft}{plain}"
