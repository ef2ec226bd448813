"""The callback that acts on alarms."""
