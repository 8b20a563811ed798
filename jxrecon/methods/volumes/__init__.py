"""Methods that find a CT volume."""
