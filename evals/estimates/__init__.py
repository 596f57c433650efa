"""How well estimates hold: lengths of answers that real models gave, and the load of a real service."""
