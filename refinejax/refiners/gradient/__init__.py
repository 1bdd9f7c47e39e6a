"""Methods that use the gradient: optimizers of optax, BFGS."""
