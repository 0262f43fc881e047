"""Segmenting scans: inferers that a configuration can name, and the function behind ``brats-pipeline segment``."""
