"""Volumes of many methods on equal terms: the same patients, grid, X-rays and noise for each of them.

`setting` says what is equal, `contenders` who takes part, `cases` reconstructs and measures, `evaluation`
runs through all and survives a kill, `summary` counts, `report` shows. `python -m jxrecon.evaluate`
is the entry point of a comparison and of the evaluation of a single run alike.
"""
