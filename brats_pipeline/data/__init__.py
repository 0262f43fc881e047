"""Which cases are trained on, and how they are read: datalist, folds, fingerprint, cache and data sets.

Only ``datasets`` and ``cache`` need torch.
"""
