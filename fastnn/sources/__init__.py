"""Data that are larger than memory: what they may be, and how they get into the arrays that the engine runs over."""

from fastnn.sources.dataset import Dataset, PyDataset
from fastnn.sources.intake import Intake, Parts, Wanted, unpack
from fastnn.sources.kinds import ArrayRows, Batches, DatasetRows, Rows, Source, Stream
from fastnn.sources.loading import BatchesJob, Loader, Ring, Stretch, buffers_for, rows_job
from fastnn.sources.opening import array_rows, holds_array_like, open_source

__all__ = [
    "ArrayRows",
    "Batches",
    "BatchesJob",
    "Dataset",
    "DatasetRows",
    "Intake",
    "Loader",
    "Parts",
    "PyDataset",
    "Ring",
    "Rows",
    "Source",
    "Stream",
    "Stretch",
    "Wanted",
    "array_rows",
    "buffers_for",
    "holds_array_like",
    "open_source",
    "rows_job",
    "unpack",
]
