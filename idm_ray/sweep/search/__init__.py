"""Who chooses the trials: the search space, the study, and their two adapters to Ray Tune."""
