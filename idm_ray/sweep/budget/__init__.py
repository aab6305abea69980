"""What a sweep may take and what it has taken: wall-clock time, and time of processors and GPUs."""
