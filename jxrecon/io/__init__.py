"""Files in and out: volumes, radiographs, meshes, arrays kept for the next time."""
