"""The paper's tables and figures again: the same sweep over configs of `tune_configs/paper/`, then drawn."""
