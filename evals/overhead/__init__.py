"""What a budgeted step costs beside the same call without a budget."""
