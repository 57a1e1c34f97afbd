"""What the machine offers: files that are there whole or not at all, processes, durations."""
