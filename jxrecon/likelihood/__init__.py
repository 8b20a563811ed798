"""How likely X-rays are under a hypothesis about their geometry: a check of it, and a search for a pose."""
