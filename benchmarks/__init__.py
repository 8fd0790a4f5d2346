"""Benchmarks of d2lkernels against native torch: see README.md in this folder."""
