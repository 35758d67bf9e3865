"""Displays: what they read, how they draw; :mod:`sklearn_jeidnn.plotting` is their face."""
