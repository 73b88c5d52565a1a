"""Comparing: two kernels, two commits or two stored runs, and a verdict for each case."""
