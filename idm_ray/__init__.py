"""Condense image datasets with IDM and tune the condensation with Ray Tune, Optuna and MLflow."""

__version__ = "0.1.0"
