"""How a sweep can end, and the exit code that says so."""

EXIT_OUR_FAULT = 1
EXIT_DONE, EXIT_FAILED_TRIALS, EXIT_NO_TRIAL, EXIT_BUDGET, EXIT_CLUSTER = 0, 3, 4, 5, 6
EXIT_SIGINT, EXIT_SIGTERM = 130, 143

BUDGET, CLUSTER, DISK, MACHINE, ASKED = "budget", "cluster", "full disk", "machine", "idm-ray stop"
"""Reasons to stop beside signals: its budget is spent; the cluster is gone; nobody has made room; what a trial needs of
the machine is lacking again and again; somebody has asked for it from another terminal."""
STOPPED = {
    BUDGET: EXIT_BUDGET,
    CLUSTER: EXIT_CLUSTER,
    DISK: EXIT_CLUSTER,
    MACHINE: EXIT_CLUSTER,
    ASKED: EXIT_SIGINT,
    "SIGINT": EXIT_SIGINT,
    "SIGTERM": EXIT_SIGTERM,
}
