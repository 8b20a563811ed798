"""IGCN (Nakao et al., MICCAI 2021, arXiv 2108.12533): an organ's deformed surface from one X-ray.

`method` is the paper's network; `plus` is IGCN+, the code that its authors released later.
"""
