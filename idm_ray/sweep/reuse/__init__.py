"""Nothing twice: trials that an earlier sweep has computed, and what it has found for the next one."""
