"""Measures the bytes of real training steps on CPU ranks, to hold the plan's formulas against."""
