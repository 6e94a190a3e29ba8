"""Losses of images as their papers and Keras write them, in NumPy, on whole arrays in double precision.

Targets are like the predictions, (N, ..., C). ``w`` are the weights of pixels, (N, ...), ``s`` those of samples, (N,).
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-7


def one_hot(labels, classes):
    return np.eye(classes)[labels.reshape(labels.shape[: labels.ndim - (labels.shape[-1] == 1)]).astype(int)]


def pixelwise(values, w=1.0, s=1.0):
    """The mean of all pixels, weighted ones counted with their weight: Keras's sum over the batch's size."""
    s = np.asarray(s).reshape(-1, *(1,) * (values.ndim - 1))
    return (values * w * s).mean()


def squared(y, p, **weights):
    return pixelwise(np.square(y - p).mean(-1), **weights)


def absolute(y, p, **weights):
    return pixelwise(abs(y - p).mean(-1), **weights)


def binary(y, p, smoothing=0.0, **weights):
    y, q = y * (1 - smoothing) + smoothing / 2, np.clip(p, EPSILON, 1 - EPSILON)
    return pixelwise(-(y * np.log(q) + (1 - y) * np.log(1 - q)).mean(-1), **weights)


def categorical(y, p, smoothing=0.0, **weights):
    y = y * (1 - smoothing) + smoothing / y.shape[-1]
    q = np.clip(p / p.sum(-1, keepdims=True), EPSILON, 1 - EPSILON)
    return pixelwise(-(y * np.log(q)).sum(-1), **weights)


def binary_focal(y, p, gamma=2.0, balance=None, **weights):
    q = np.clip(p, EPSILON, 1 - EPSILON)
    right = y * p + (1 - y) * (1 - p)
    terms = -((1 - right) ** gamma) * (y * np.log(q) + (1 - y) * np.log(1 - q))
    if balance is not None:
        terms = terms * (y * balance + (1 - y) * (1 - balance))
    return pixelwise(terms.mean(-1), **weights)


def categorical_focal(y, p, alpha=0.25, gamma=2.0, **weights):
    q = np.clip(p / p.sum(-1, keepdims=True), EPSILON, 1 - EPSILON)
    return pixelwise((-y * np.log(q) * (1 - q) ** gamma * alpha).sum(-1), **weights)


def tversky(y, p, alpha, beta, w=1.0, s=1.0, joint=False, smooth=1e-5):
    w = np.broadcast_to(w, p.shape[:-1])[..., None]
    axes = tuple(range(1, p.ndim if joint else p.ndim - 1))
    tp, fp, fn = ((w * part).sum(axes) for part in (p * y, p * (1 - y), (1 - p) * y))
    index = (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)
    return ((1 - index).reshape(len(p), -1).mean(1) * s).mean()


def dice(y, p, **options):
    return tversky(y, p, 0.5, 0.5, **options)


def jaccard(y, p, **options):
    return tversky(y, p, 1.0, 1.0, **options)
