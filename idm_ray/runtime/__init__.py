"""What every process needs: device and precision, memory, files, random streams, progress."""
