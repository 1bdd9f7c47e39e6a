"""Damped sines, fitted by refinejax.

This file imports nothing: ``refinejax --help`` reads `damped_sine.application`, and should not wait
for JAX.
"""
