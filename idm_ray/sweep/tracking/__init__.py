"""MLflow, never in the way: a tracker that writes through a journal on disk."""
