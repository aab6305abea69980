"""What is kept on disk and outlives a run."""
