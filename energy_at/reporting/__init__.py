"""From runs to tables, figures, HTML and W&B."""
