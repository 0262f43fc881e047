"""What an exported bundle uses where a library is not installed: the few calls that our modules make, more slowly.

Here the libraries themselves are used. No module of this distribution imports these; an export copies them beside those
that would import the library (see :mod:`brats_pipeline.bundles.vendoring`).
"""
