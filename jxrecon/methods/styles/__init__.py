"""Methods that give X-rays another style."""
