"""Lenses from phase maps, stage by stage: slopes, leap, stages, climb, rungs, lines, scale."""
