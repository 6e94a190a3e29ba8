"""What several test files ask for."""

from __future__ import annotations

import signal

import pytest

import fastnn
from fastnn import backends

#: A shell starts what runs in the background with Ctrl-C ignored, and programs hand that on to those they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=[name for name in backends.NAMES if backends.load(name).why_not() is None])
def backend(request):
    """Each backend that works here, in turn."""
    fastnn.config.set_backend(request.param)
    yield request.param
    fastnn.config.set_backend("auto")
