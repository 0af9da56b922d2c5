"""Data for the lessons: an offline default for each, real sets by --data.

Heavy imports stay inside functions.
"""
