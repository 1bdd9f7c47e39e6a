"""Distributions of tasks, to learn from."""
