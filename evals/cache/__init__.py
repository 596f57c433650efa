"""What the caches take and save: `python -m evals.cache`, and its sub-commands."""
