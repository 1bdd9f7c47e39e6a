"""Benchmarks of target search through trained models."""
