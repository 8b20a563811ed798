"""Pixel2Mesh (Wang et al., ECCV 2018, arXiv 1804.01654), on an organ's template."""
