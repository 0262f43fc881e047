"""Training a bundle: what its configuration names, and the function behind ``brats-pipeline train``."""
