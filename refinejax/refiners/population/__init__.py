"""Populations: strategies of evosax with bounds, ends and restarts."""
