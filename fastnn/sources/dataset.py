"""The two base classes that users derive from. The public door is ``fastnn.utils``."""

from __future__ import annotations

from typing import Any


class Dataset:
    """Rows that are loaded one at a time when they are needed: an item is one sample, as in PyTorch.

    ``fit``, ``evaluate`` and ``predict`` take it in place of ``x``. They shuffle, put the samples together to batches,
    and load ahead in threads of their own while the engine computes. The order of the samples, and so the weights after
    training, are to the last bit those that the same data give as arrays, however many threads load them.

    Any object with ``__len__`` and ``__getitem__`` that is no array or sequence works the same way; this class only
    says so aloud.

    Define:
        __len__: the number of samples
        __getitem__: sample ``index``, 0 .. len - 1, as ``(x, y)`` or ``(x, y, sample_weight)`` without a batch axis;
            for ``predict`` also ``x`` alone. The weight is a number or, for images, an array of one a pixel. Several
            threads call it at once if ``workers`` is more than 1

    Attributes:
        workers: threads that load, if ``fit`` is not told otherwise; with 0 the samples are loaded between the steps

    Example:
        >>> import numpy as np
        >>> from fastnn import Sequential
        >>> from fastnn.layers import Dense
        >>> class Squares(Dataset):
        ...     def __len__(self):
        ...         return 1000
        ...
        ...     def __getitem__(self, index):
        ...         x = index / 1000  # or open a file with that number
        ...         return np.array([x]), np.array([x * x])
        >>> model = Sequential([Dense(16, activation="tanh", input_shape=(1,)), Dense(1)])
        >>> model.compile(optimizer="adam", loss="mse")
        >>> history = model.fit(Squares(), epochs=2, batch_size=50, validation_split=0.2, workers=2, verbose=0)
        >>> list(history.history), model.predict(Squares()).shape
        (['loss', 'val_loss'], (1000, 1))
    """

    workers: int = 1

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")


class PyDataset:
    """Batches that are loaded when they are needed: an item is one batch, as in Keras. ``Sequence`` is its older name.

    Each batch is one training step, whatever its size. With ``shuffle`` the batches come in another order in each
    epoch; what is in them stays together.

    Define:
        __len__: the number of batches
        __getitem__: batch ``index`` as ``(x, y)`` or ``(x, y, sample_weight)`` with a batch axis; for ``predict`` also
            ``x`` alone
        on_epoch_begin, on_epoch_end: called around each epoch of training, if you like

    Args:
        workers: threads that load ahead, if ``fit`` is not told otherwise; 0 for none
        use_multiprocessing: accepted; loading is done by threads
        max_queue_size: accepted; batches are loaded ahead as far as a little memory allows

    Example:
        >>> import numpy as np
        >>> from fastnn import Sequential
        >>> from fastnn.layers import Dense
        >>> class Parts(PyDataset):
        ...     def __len__(self):
        ...         return 5
        ...
        ...     def __getitem__(self, index):
        ...         x = np.linspace(index, index + 1, 20)[:, None]  # or read part `index` of a file
        ...         return x, 2 * x
        >>> model = Sequential([Dense(1, input_shape=(1,))])
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> history = model.fit(Parts(), epochs=3, verbose=0)
        >>> model.optimizer.iterations, model.predict(Parts()).shape
        (15, (100, 1))
    """

    workers: int = 1

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers = workers

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def on_epoch_begin(self) -> None:
        """Before each epoch of training."""

    def on_epoch_end(self) -> None:
        """After each epoch of training."""
