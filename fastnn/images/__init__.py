"""The whole job on images: folders of PNG, JPEG, BMP, TIFF and GIF files in, a trained, evaluated, saved network out.

Importing this needs NumPy only; reading images needs the extra ``images``.
"""

from fastnn.images.preprocessor import ImagePreprocessor

__all__ = ["ImagePreprocessor"]
