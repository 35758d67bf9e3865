"""Heads, gates and routing: how samples leave a network early.

``policy`` and ``gate_points`` need NumPy only, so nothing is imported here.
"""
