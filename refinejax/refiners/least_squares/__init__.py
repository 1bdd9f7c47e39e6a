"""Methods that use a residual: Gauss–Newton, Levenberg–Marquardt."""
