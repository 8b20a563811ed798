"""jxrecon: 3-D CT volumes and organ surfaces from one or two X-rays, in JAX."""

import os

# XLA's CPU compilation cache warns at every load of features that it invented itself; read before jax.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
