"""Benchmarks of learning: estimators of the meta-gradient, learned starts, rules and refiners."""
