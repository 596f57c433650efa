"""Reference graphs: wiring only, written with public names."""
