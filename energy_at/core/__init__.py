"""Types, random numbers, processes, files."""
