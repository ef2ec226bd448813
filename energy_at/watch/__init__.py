"""Live view of trainings, from their folders, in the terminal or in the browser."""
