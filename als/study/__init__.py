"""The study: maps x objects x measures on a data set, as rows, a summary, figures.

It stands above the detector, its explainers and its evaluation, which know nothing of it.
"""
