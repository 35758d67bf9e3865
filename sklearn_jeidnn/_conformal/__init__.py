"""What :mod:`sklearn_jeidnn.conformal` offers, a file for each step (NumPy only)."""
