"""Methods that find an organ's surface."""
