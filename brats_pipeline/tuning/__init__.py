"""Post-processing chosen on validation predictions: what it would be, and whether it helps."""
