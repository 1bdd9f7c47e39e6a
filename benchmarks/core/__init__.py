"""Benchmarks of the core: least squares, populations, the batch engine, compilation."""
