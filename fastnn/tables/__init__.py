"""The whole job on a table: raw rows of a CSV in, a trained, evaluated, saved network out.

Importing this needs NumPy only; reading files and splitting them needs the extra ``tables``.
"""

from fastnn.tables.preprocessor import TablePreprocessor

__all__ = ["TablePreprocessor"]
