"""Models: one file per provider behind one protocol (`base`), and the catalog of local weights."""
