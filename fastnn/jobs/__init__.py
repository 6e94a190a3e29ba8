"""What the jobs on tables and on images share: the split, the training, scores, reports, and files that appear whole.

Importing this needs NumPy only.
"""
