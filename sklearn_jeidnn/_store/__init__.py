"""Fitted classifiers as files: values, arrays and graphs, of which nothing is run (NumPy only)."""
