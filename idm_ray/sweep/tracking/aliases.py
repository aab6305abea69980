"""The names of a condensed set in MLflow: a tag of the run that made it.

MLflow's registry is for models. It takes an entry whose files are a condensed set, and shows it as a model that
``models:/NAME@ALIAS`` then cannot load, since there is no MLmodel among them (seen with 3.17.2).
"""

from collections.abc import Sequence

from mlflow import MlflowClient

from idm_ray.sweep.tracking.store import one_attempt

ALIAS_TAG = "idm_ray.alias"


def tag_names(uri: str, run_id: str, names: Sequence[str]) -> None:
    """Let a run have these names of its set, and no others.

    Args:
        uri: of the tracking store.
        run_id: of the trial.
        names: none takes the tag away.

    Raises:
        UserError: the store cannot be reached.
    """
    with one_attempt(uri):
        client = MlflowClient(tracking_uri=uri)
        if names:
            client.set_tag(run_id, ALIAS_TAG, ", ".join(names))
        elif ALIAS_TAG in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, ALIAS_TAG)
