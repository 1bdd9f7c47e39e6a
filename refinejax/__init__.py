"""refinejax."""
