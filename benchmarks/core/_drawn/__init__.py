"""Drawn fits: small problems in any units, arrays and bounds, and a judge of how they end.

`tests/properties` and `benchmarks.core.right_or_refused` draw the same cases.
"""
