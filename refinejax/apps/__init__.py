"""Applications: what a domain user imports."""
