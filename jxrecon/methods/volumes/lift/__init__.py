"""Lift: a network that corrects the linear prior from the X-rays, with a standard deviation a voxel."""
