"""What `fit` shows: on terminals of all widths, in files, and when the stream fails."""

from __future__ import annotations

import io
import math

import pytest

from fastnn import progress
from fastnn.progress import ProgressBar, say

LOGS = {"loss": 0.0873, "accuracy": 0.9753, "val_loss": 0.1021, "val_accuracy": 0.9649}


class Terminal(io.StringIO):
    """A stream that says it is a terminal and remembers what each write did to the screen."""

    def __init__(self, encoding="utf-8"):
        super().__init__()
        self._encoding = encoding
        self.writes = 0

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return True

    def fileno(self):
        return 99

    def write(self, text):
        text.encode(self._encoding)
        self.writes += 1
        return super().write(text)

    def screen(self):
        """The lines as a person sees them: a carriage return writes over the line."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture(autouse=True)
def no_bar_stays_open():
    yield
    for bar in list(progress._open_bars):
        bar.close()


@pytest.fixture
def clock(monkeypatch):
    """Time that moves only when told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


@pytest.fixture
def window(monkeypatch):
    """A window that can be resized."""
    size = [120]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda handle: progress.os.terminal_size((size[0], 24)))
    return size


def epochs(bar, count, seconds=0.0004, logs=LOGS):
    for epoch in range(count):
        bar.epoch_begin(epoch)
        bar.epoch_end(epoch, logs, seconds)


def test_a_file_gets_one_plain_line_an_epoch():
    stream = io.StringIO()
    bar = ProgressBar(100, 12, "auto", stream)
    epochs(bar, 2)
    bar.close()
    line = "/100  0.4 ms  loss 0.0873  accuracy 0.9753  val_loss 0.1021  val_accuracy 0.9649\n"
    assert stream.getvalue() == "Epoch   1" + line + "Epoch   2" + line


@pytest.mark.parametrize("verbose", ["auto", 1, 2, True])
def test_a_file_gets_the_same_lines_whatever_is_asked_for(verbose, clock):
    stream = io.StringIO()
    bar = ProgressBar(1, 12, verbose, stream)
    bar.epoch_begin(0)
    clock(1)
    bar.update(3, LOGS)
    assert stream.getvalue() == ""
    bar.epoch_end(0, {"loss": 0.5}, 1.0)
    bar.close()
    assert stream.getvalue() == "Epoch 1/1   1.0 s  loss 0.5000\n"


def test_silence_is_silent(clock):
    stream = Terminal()
    bar = ProgressBar(3, 12, 0, stream)
    bar.update(1, LOGS)
    clock(1)
    bar.update(2, LOGS)
    epochs(bar, 3)
    bar.close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("verbose", [3, -1, "yes", None])
def test_another_verbose_is_an_error(verbose):
    with pytest.raises(ValueError, match=r"verbose must be 'auto', 0, 1 or 2\. Received: verbose="):
        ProgressBar(1, 1, verbose, io.StringIO())


def test_a_terminal_shows_a_live_bar_that_the_finished_line_replaces(window, clock):
    stream = Terminal()
    bar = ProgressBar(10, 16, "auto", stream)
    bar.epoch_begin(0)
    clock(2.0)
    bar.update(5, {"loss": 0.5, "accuracy": 0.75})
    assert stream.screen() == ["Epoch  1/10 ━━╸       5/16   2.0 s  loss 0.5000  accuracy 0.7500  4.4 s left"]
    clock(4.4)
    bar.epoch_end(0, {"loss": 0.25}, 6.4)
    assert stream.screen() == ["Epoch  1/10 ━━━━━━━━ 16/16   6.4 s  loss 0.2500", ""]
    bar.close()
    assert "\x1b" not in stream.getvalue()


def test_the_live_bar_is_drawn_at_most_ten_times_a_second(window, clock):
    stream = Terminal()
    bar = ProgressBar(1, 1000, 1, stream)
    bar.epoch_begin(0)
    for step in range(1000):
        clock(0.001)
        bar.update(step, {"loss": 0.5})
    assert 8 <= stream.writes <= 10


def test_lines_of_fast_epochs_are_written_together(window, clock):
    stream = Terminal()
    bar = ProgressBar(1000, 1, 1, stream)
    for epoch in range(1000):
        clock(0.0002)
        bar.epoch_end(epoch, LOGS, 0.0002)
    bar.close()
    assert stream.writes <= 5
    assert [line.split("/")[0] for line in stream.screen()[:-1]] == [f"Epoch {n:4d}" for n in range(1, 1001)]


def test_lines_of_slow_epochs_are_written_at_once(clock):
    stream = io.StringIO()
    bar = ProgressBar(3, 1, 2, stream)
    for epoch in range(3):
        clock(0.06)
        bar.epoch_end(epoch, {"loss": 0.5}, 0.06)
        assert stream.getvalue().count("\n") == epoch + 1


def test_lines_held_back_are_written_while_a_slow_epoch_runs(clock):
    stream = io.StringIO()
    bar = ProgressBar(3, 1, 2, stream)
    bar.epoch_end(0, {"loss": 0.5}, 0.001)
    assert stream.getvalue() == ""
    clock(0.2)
    bar.update(1, {"loss": 0.5})
    assert stream.getvalue().count("\n") == 1


def test_close_ends_an_interrupted_line_and_may_be_called_twice(window, clock):
    stream = Terminal()
    bar = ProgressBar(10, 16, 1, stream)
    bar.epoch_begin(0)
    clock(1)
    bar.update(8, {"loss": 0.5})
    bar.close()
    bar.close()
    assert stream.getvalue().endswith("left\n")
    bar.update(9, {"loss": 0.5})
    bar.epoch_end(0, {"loss": 0.5}, 1)
    assert stream.getvalue().endswith("left\n")


@pytest.mark.parametrize("width", range(1, 130))
def test_no_line_is_as_wide_as_the_window(window, clock, width):
    window[0] = width
    stream = Terminal()
    bar = ProgressBar(100, 1200, 1, stream)
    for epoch in range(3):
        bar.epoch_begin(epoch)
        clock(1)
        bar.update(600, {"loss": 0.5, "accuracy": 0.5})
        bar.epoch_end(epoch, LOGS | {"loss": 10.0 ** (5 * epoch)}, 1.0)
    bar.close()
    assert all(len(line) < width for text in stream.getvalue().split("\n") for line in text.split("\r"))


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            110,
            "Epoch  37/100 ━━━━━━━━ 12/12  0.4 ms  loss 0.0873  accuracy 0.9753  val_loss 0.1021  val_accuracy 0.9649",
        ),
        (100, "Epoch  37/100 12/12  0.4 ms  loss 0.0873  accuracy 0.9753  val_loss 0.1021  val_accuracy 0.9649"),
        (92, "Epoch  37/100  0.4 ms  loss 0.0873  accuracy 0.9753  val_loss 0.1021  val_accuracy 0.9649"),
        (80, "Epoch  37/100  0.4 ms  loss 0.0873 val 0.1021  accuracy 0.9753 val 0.9649"),
        (70, "Epoch  37/100  loss 0.0873 val 0.1021  accuracy 0.9753 val 0.9649"),
        (60, " 37/100  loss 0.0873 val 0.1021  accuracy 0.9753 val 0.9649"),
        (30, " 37/100  loss 0.0873 val 0.10"),
    ],
)
def test_lines_are_shortened_to_the_window(window, width, line):
    window[0] = width
    stream = Terminal()
    bar = ProgressBar(100, 12, 1, stream)
    bar.epoch_end(36, LOGS, 0.0004)
    bar.close()
    assert stream.getvalue() == line + "\n"


def test_a_window_made_wider_shows_more_again(window, clock):
    stream = Terminal()
    bar = ProgressBar(2, 12, 1, stream)
    for epoch, width in enumerate([60, 120]):
        window[0] = width
        clock(1)
        bar.epoch_end(epoch, LOGS, 1.0)
    bar.close()
    first, second, _ = stream.screen()
    assert "━" not in first
    assert "━" in second


def test_columns_stay_below_each_other_when_numbers_change(clock):
    stream = io.StringIO()
    bar = ProgressBar(8, 12, 2, stream)
    for epoch, loss in enumerate([1234567.0, 823.4, 41.5, 0.99, 0.00002, 0.0, math.nan, math.inf]):
        bar.epoch_end(epoch, {"loss": loss, "accuracy": 0.5}, 10.0 ** (epoch - 4))
    bar.close()
    lines = stream.getvalue().splitlines()
    assert len({line.index("accuracy") for line in lines}) == 1, lines
    assert ["nan" in lines[6], "inf" in lines[7]] == [True, True]


def test_an_ascii_terminal_gets_an_ascii_bar(window, clock):
    stream = Terminal("ascii")
    bar = ProgressBar(2, 16, 1, stream)
    bar.epoch_begin(0)
    clock(1)
    bar.update(5, {"schärfe": 0.5})
    bar.epoch_end(0, {"schärfe": 0.5}, 1.0)
    bar.close()
    assert "Epoch 1/2 ##-       5/16" in stream.getvalue()
    assert stream.screen() == ["Epoch 1/2 ######## 16/16   1.0 s  sch?rfe 0.5000", ""]


def test_a_dumb_terminal_gets_plain_lines(window, clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    bar = ProgressBar(1, 12, "auto", stream)
    clock(1)
    bar.update(3, LOGS)
    bar.epoch_end(0, {"loss": 0.5}, 1.0)
    assert stream.getvalue() == "Epoch 1/1   1.0 s  loss 0.5000\n"
    bar.close()


def test_verbose_2_on_a_terminal_has_no_live_bar(window, clock):
    stream = Terminal()
    bar = ProgressBar(1, 12, 2, stream)
    clock(1)
    bar.update(3, LOGS)
    bar.epoch_end(0, {"loss": 0.5}, 1.0)
    assert stream.getvalue() == "Epoch 1/1   1.0 s  loss 0.5000\n"
    bar.close()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")])
def test_a_stream_that_fails_is_given_up_and_training_goes_on(error, caplog):
    class Broken(io.StringIO):
        def write(self, text):
            raise error

    bar = ProgressBar(2, 12, 2, Broken())
    epochs(bar, 1)
    bar.flush()
    epochs(bar, 2)
    bar.close()
    assert len([record for record in caplog.records if "progress is not shown" in record.message]) == 1


def test_messages_stand_between_the_epochs_where_they_were_said(clock):
    stream = io.StringIO()
    bar = ProgressBar(2, 1, 2, stream)
    bar.epoch_end(0, {"loss": 0.5}, 1.0)
    say("saved")
    bar.epoch_end(1, {"loss": 0.25}, 1.0)
    bar.close()
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["Epoch", "saved", "Epoch"]


@pytest.mark.parametrize("closed", [True, False])
def test_messages_without_a_bar_go_to_the_standard_output(capsys, closed):
    bar = ProgressBar(1, 1, 2 if closed else 0, io.StringIO())
    if closed:
        bar.close()
    say("saved")
    assert capsys.readouterr().out == "saved\n"


def test_the_standard_output_is_the_default(capsys):
    bar = ProgressBar(1, 12)
    epochs(bar, 1)
    bar.close()
    assert capsys.readouterr().out.startswith("Epoch 1/1  0.4 ms  loss 0.0873")


def test_no_standard_output_at_all_is_silence(monkeypatch):
    monkeypatch.setattr(progress.sys, "stdout", None)
    bar = ProgressBar(1, 12, 1)
    epochs(bar, 1)
    say("nobody hears")
    bar.close()


def test_a_title_replaces_the_count_of_epochs():
    stream = io.StringIO()
    bar = ProgressBar(1, 12, 2, stream, title="Evaluate")
    bar.epoch_end(0, {"loss": 0.5}, 0.02)
    bar.close()
    assert stream.getvalue() == "Evaluate   20 ms  loss 0.5000\n"


def test_logs_may_change_after_the_epoch():
    stream = io.StringIO()
    bar = ProgressBar(1, 12, 2, stream)
    logs = {"loss": 0.5}
    bar.epoch_end(0, logs, 0.02)
    logs["loss"] = 99.0
    bar.close()
    assert "loss 0.5000" in stream.getvalue()
