"""The data of `small_nets` in other kinds: samples, batches, generators, arrays that are read in slices."""

from __future__ import annotations

import threading

import numpy as np

from fastnn.utils import Dataset, PyDataset


class Samples(Dataset):
    """Item i is row i of each array; `asked` is what was asked for."""

    def __init__(self, *arrays):
        self.arrays, self.asked, self.threads = arrays, [], set()

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, index):
        assert type(index) is int
        self.asked.append(index)
        self.threads.add(threading.current_thread())
        return tuple(array[index] for array in self.arrays)


class Failing(Samples):
    """Some items cannot be read."""

    def __init__(self, *arrays, bad=()):
        super().__init__(*arrays)
        self.bad = bad

    def __getitem__(self, index):
        if index in self.bad:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


class Parts(PyDataset):
    """Item i is the i-th batch of each array."""

    def __init__(self, size, *arrays, **options):
        super().__init__(**options)
        self.size, self.arrays, self.epochs = size, arrays, []

    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, index):
        return tuple(array[index * self.size : (index + 1) * self.size] for array in self.arrays)

    def on_epoch_begin(self):
        self.epochs.append("begin")

    def on_epoch_end(self):
        self.epochs.append("end")


class Again:
    """Can be iterated over anew: batches as lists, as data loaders give them."""

    def __init__(self, size, *arrays):
        self.parts = Parts(size, *arrays)

    def __iter__(self):
        return (list(self.parts[i]) for i in range(len(self.parts)))


def endless(size, *arrays):
    """A generator of batches, over and over."""
    while True:
        yield from map(tuple, Again(size, *arrays))


class Stored:
    """An array that can be read in slices and nothing else; `slices` are those that were read."""

    def __init__(self, array, chunks=None):
        self._array, self.slices = array, []
        self.shape, self.dtype = array.shape, array.dtype
        if chunks is not None:
            self.chunks = chunks

    def __getitem__(self, key):
        assert isinstance(key, slice) and key.step is None
        self.slices.append((key.start, key.stop))
        return self._array[key]


def mapped(path, array):
    """The array as a memory map."""
    file = np.memmap(path, array.dtype, "w+", shape=array.shape)
    file[...] = array
    file.flush()
    return np.memmap(path, array.dtype, "r", shape=array.shape)
