"""Context within a token allowance: what is inside it, what it lets a model answer, and how long it takes."""
