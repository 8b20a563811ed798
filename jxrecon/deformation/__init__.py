"""How organs differ and move: shape models, breathing, and the CT that follows; NumPy, world mm."""
