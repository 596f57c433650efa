"""What patterns find, and whether retrieved text gives orders: ``python -m evals.privacy``."""
