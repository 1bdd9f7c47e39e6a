"""Benchmarks of metalens phase maps: the cascade and the methods it competes with."""
