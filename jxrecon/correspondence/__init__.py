"""One topology on many organs: a template is fitted to each, so that they share vertices and faces."""
