"""Refiners made of others: in sequence, from several starts, along a continuation."""
