"""The sweep: Optuna suggests and prunes, Ray Tune places and runs, MLflow shows."""

import os

# Ray and MLflow read these when they are imported, hence before any module of this package.
for _name, _value in {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "120",  # else a driver is killed before it has ended in order
    "RAY_worker_niceness": "0",  # else 15, with which trials hardly move beside other programs
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` sends the current folder to all nodes
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # the study is the state; else all trials are written down again and again
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}.items():
    os.environ.setdefault(_name, _value)
os.environ["RAY_AUTH_MODE"] = "token"  # whatever the shell says, see `nodes.guard`
