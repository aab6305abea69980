"""The sweep: Optuna suggests and prunes, Ray Tune places and runs, MLflow shows."""
