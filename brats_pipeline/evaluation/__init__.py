"""Scoring label maps: matching files, running the metrics, the manifest, and making a report's figures again."""
