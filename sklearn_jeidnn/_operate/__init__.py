"""Operating points: the frontier of accuracy and cost, certification, calibration.

Only ``gate_descent`` needs torch; it is imported when gates are trained.
"""
