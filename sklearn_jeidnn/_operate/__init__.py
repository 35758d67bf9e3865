"""Operating points: the frontier of accuracy and cost, certification, calibration.

NumPy alone chooses and calibrates a point; certification and the comparison with new samples need SciPy, too.
"""
