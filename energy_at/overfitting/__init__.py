"""From logged rows to catastrophic and robust overfitting."""
