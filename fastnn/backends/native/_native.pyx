# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The door to the C core: a Plan becomes a Program there, and runs with the interpreter's lock released."""

import threading
import time

import numpy as np

from fastnn.backends.numpy import execute, views
from fastnn.ops.augment import FILL_MODES, INTERPOLATIONS
from fastnn.plan import zeros

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset


cdef extern from "team.h":
    int team_default_size()
    int team_set_size(int n)
    int team_size()

cdef extern from "kernels.h":
    enum:
        MAX_RANK
        MAX_INPUTS
        MAX_OUTPUTS
    struct tensor:
        void *data
        int64_t size[6]
        int32_t rank
        int32_t batch
        int64_t skip
        int32_t changing
    struct attributes:
        double alpha, negative_slope, limit, l1, l2, threshold, rate, momentum, rho, beta_1, beta_2, epsilon
        double weight_decay, stddev, scale, offset, beta, gamma, positive, negative
        int32_t joint
        const float *class_weights
        int32_t nesterov, activation, flip, horizontal, vertical, fill_mode, interpolation
        double fill_value
        uint32_t stream
        uint64_t seed
        int32_t axis
        int64_t groups, index, start
        int64_t strides[3]
        int64_t dilations[3]
        int64_t kernel[3]
        int64_t before[3]
        int64_t after[3]
        int64_t perm[6]
        double turns[2]
        double heights[2]
        double widths[2]
        double factors[2]
        double limits[2]
    ctypedef void kernel(const step *, const void *) noexcept nogil
    struct step:
        kernel *run
        tensor out[3]
        tensor in_ "in"[6]
        attributes attr
        double work
        int32_t inputs, outputs
        void *workspace
    struct kernel_table:
        const char *isa

cdef extern from "dispatch.h":
    const kernel_table *dispatch_table()
    int dispatch_choose(const char *isa)
    int dispatch_has(const char *isa)
    kernel *dispatch_kernel(const char *op)
    int dispatch_activation(const char *name)

cdef extern from "program.h":
    struct binding:
        int32_t step, array
        int32_t buffer, stream
        int64_t offset, advance
    struct program:
        step *steps
        binding *bindings
        int32_t n_steps, n_bindings, n_streams
        int64_t batch
    void program_bind(program *p, binding b)
    int64_t program_run(program *p, void *const *bases, int64_t first, int64_t last, int64_t batch, int64_t rows,
                        double seconds) nogil
    double program_peak(double seconds) nogil
    void program_run_apart(program *const *programs, void *const *const *bases, int count, int64_t last,
                           int64_t batch, int64_t rows) nogil
    void program_begin(program *p, void *const *bases, int64_t k, int64_t batch, int64_t rows) nogil
    void program_steps(program *p, int64_t size, int32_t start, int32_t end) nogil
    void program_time(program *p, int64_t size, int32_t start, int32_t end, double *seconds) nogil

DEF MAX_BUFFERS = 1024
DEF MAX_LANES = 256

_ITEM = {"float": 4, "float64": 8, "int64": 8}


cdef void set_attribute(attributes *a, str name, value) except *:
    """Store one attribute under its name."""
    if name == "alpha": a.alpha = value
    elif name == "negative_slope": a.negative_slope = value
    elif name == "limit": a.limit = value
    elif name == "l1": a.l1 = value
    elif name == "l2": a.l2 = value
    elif name == "threshold": a.threshold = value
    elif name == "rate": a.rate = value
    elif name == "momentum": a.momentum = value
    elif name == "rho": a.rho = value
    elif name == "beta_1": a.beta_1 = value
    elif name == "beta_2": a.beta_2 = value
    elif name == "epsilon": a.epsilon = value
    elif name == "weight_decay": a.weight_decay = value
    elif name == "stddev": a.stddev = value
    elif name == "scale": a.scale = value
    elif name == "beta": a.beta = value
    elif name == "gamma": a.gamma = value
    elif name == "positive": a.positive = value
    elif name == "negative": a.negative = value
    elif name == "joint": a.joint = value
    elif name == "offset": a.offset = value
    elif name == "nesterov": a.nesterov = value
    elif name == "activation": a.activation = dispatch_activation(value.encode())
    elif name == "stream": a.stream = value
    elif name == "seed": a.seed = value
    elif name == "flip": a.flip = bool(value)
    elif name == "groups": a.groups = value
    elif name == "index": a.index = value
    elif name == "axis": a.axis = value
    elif name == "start": a.start = value
    elif name == "strides": set_space(a.strides, value)
    elif name == "dilations": set_space(a.dilations, value)
    elif name == "kernel": set_space(a.kernel, value)
    elif name == "horizontal": a.horizontal = value
    elif name == "vertical": a.vertical = value
    elif name == "fill_mode": a.fill_mode = FILL_MODES.index(value)
    elif name == "interpolation": a.interpolation = INTERPOLATIONS.index(value)
    elif name == "fill_value": a.fill_value = value
    elif name == "turns": set_range(a.turns, value)
    elif name == "heights": set_range(a.heights, value)
    elif name == "widths": set_range(a.widths, value)
    elif name == "factors": set_range(a.factors, value)
    elif name == "limits": set_range(a.limits, value)
    elif name == "pads":
        set_space(a.before, [before for before, _ in value])
        set_space(a.after, [after for _, after in value])
    elif name == "perm":
        if len(value) >= MAX_RANK:
            raise ValueError(f"native: arrays have at most {MAX_RANK} axes. Received: perm={value}")
        for axis, source in enumerate(value, start=1):
            a.perm[axis] = source
    elif name in ("shape", "sizes", "filters", "size", "whole"): pass  # the arrays' sizes say it
    else:
        raise ValueError(f"native: attribute {name} is not known to the C core")


cdef void set_space(int64_t *numbers, values) except *:
    """One number for each spatial axis, the last of which is W."""
    cdef int axis
    for axis in range(len(values)):
        numbers[3 - len(values) + axis] = values[axis]


cdef void set_range(double *numbers, values) except *:
    """Low and high, or nothing for None."""
    if values is not None:
        numbers[0], numbers[1] = values


cdef void *address(array) except NULL:
    """Where a contiguous array's data starts. The caller keeps the array alive."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    PyBuffer_Release(&view)
    return view.buf if view.buf else <void *>64


cdef class Program:
    """A Plan in the C core. Same methods as the reference's ``Program``."""

    cdef program c
    cdef program first  # the steps of prepare
    cdef void *bases[MAX_BUFFERS]
    cdef readonly object plan
    cdef object arena, constants
    cdef object lock
    cdef list others  # programs of the other lanes, see run_apart
    cdef list numbers  # arrays that attributes point to
    cdef dict slots  # buffer name -> its number
    cdef set overwritten  # buffers that steps update in place
    cdef list names  # of the buffers, by number: the arena is 0, the constants are 1
    cdef list first_slots  # numbers of the buffers that prepare reads
    cdef list breaks, first_breaks  # of the steps, and of those of prepare: see _add_steps

    def __cinit__(self, plan, Program lead=None):
        if plan.dtype != "float32":
            raise ValueError(f"native: computes in float32. Received: dtype={plan.dtype!r}")
        if len(plan.buffers) > MAX_BUFFERS:
            raise ValueError(f"native: a Plan may use {MAX_BUFFERS} buffers. Received: {len(plan.buffers)}")
        self.plan = plan
        self.lock = threading.Lock()
        self.others = []
        self.numbers = []
        self.names = list(plan.buffers)
        self.overwritten = {o.place.buffer for step in plan.steps if step.op.updates for o in step.outputs}
        self.slots = {name: number for number, name in enumerate(plan.buffers)}
        self.first_slots = sorted({self.slots[i.place.buffer] for step in plan.constants for i in step.inputs} - {0, 1})
        self.arena = zeros(plan.arena_size, np.float32)
        self.constants = zeros(plan.constants_size, np.float32) if lead is None else lead.constants
        self.bases[0] = address(self.arena)
        self.bases[1] = address(self.constants)
        self.first_breaks = self._add_steps(&self.first, plan.constants)
        self.breaks = self._add_steps(&self.c, plan.steps)

    def __dealloc__(self):
        PyMem_Free(self.c.steps)
        PyMem_Free(self.c.bindings)
        PyMem_Free(self.first.steps)
        PyMem_Free(self.first.bindings)

    cdef list _add_steps(self, program *p, steps):
        """Returns where the engine has to stop for a step in Python: the number of its steps before, and the step."""
        cdef int count = len(steps), bindings = sum(len(step.outputs) + len(step.inputs) for step in steps)
        p.steps = <step *>PyMem_Calloc(max(count, 1), sizeof(step))
        p.bindings = <binding *>PyMem_Calloc(max(bindings, 1), sizeof(binding))
        if p.steps == NULL or p.bindings == NULL:
            raise MemoryError()
        p.batch = self.plan.batch
        breaks = []
        for planned in steps:
            if planned.op.python:
                breaks.append((p.n_steps, planned))
            else:
                self._add_step(p, planned)
        return breaks

    cdef void _add_step(self, program *p, planned) except *:
        cdef step *s = &p.steps[p.n_steps]
        cdef int axis
        s.run = dispatch_kernel(planned.op.name.encode())
        if s.run == NULL:
            raise NotImplementedError(f"native: has no kernel for the op {planned.op.name}")
        if len(planned.inputs) > MAX_INPUTS or len(planned.outputs) > MAX_OUTPUTS:
            raise ValueError(f"native: {planned.op.name} has too many arrays")
        s.outputs = len(planned.outputs)
        s.inputs = len(planned.inputs)
        s.work = planned.flops
        for axis in range(3):
            s.attr.strides[axis] = s.attr.dilations[axis] = s.attr.kernel[axis] = 1
        s.workspace = <char *>self.bases[0] + 4 * <int64_t>planned.workspace
        for name, value in planned.attrs.items():
            if name == "class_weights":
                array = np.array(value, np.float32)
                self.numbers.append(array)
                s.attr.class_weights = <const float *>address(array)
            else:
                set_attribute(&s.attr, name, value)
        for number, operand in enumerate((*planned.outputs, *planned.inputs)):
            self._add_operand(p, s, number, operand)
        p.n_steps += 1

    cdef void _add_operand(self, program *p, step *s, int number, operand) except *:
        cdef tensor *t = &s.out[number] if number < s.outputs else &s.in_[number - s.outputs]
        cdef binding b
        cdef int axis
        cdef int64_t row = _ITEM[operand.dtype]
        shape = operand.sized(self.plan.batch)
        if len(shape) > MAX_RANK:
            raise ValueError(f"native: arrays have at most {MAX_RANK} axes. Received: shape {shape}")
        t.rank = len(shape)
        t.batch = operand.batch
        t.skip = operand.skip
        t.changing = operand.place.buffer in self.overwritten
        for axis in range(t.rank):
            t.size[axis] = shape[axis]
            if axis or not t.batch:
                row *= shape[axis]
        b.step = p.n_steps
        b.array = number
        b.buffer = self.slots[operand.place.buffer]
        b.stream = operand.place.stream
        b.offset = operand.place.offset * _ITEM[operand.dtype]
        b.advance = row
        program_bind(p, b)

    cdef void _bind(self, dict buffers) except *:
        cdef int number
        for number in range(2, len(self.names)):
            self.bases[number] = address(buffers[self.names[number]])

    cdef int64_t _run(self, void *const *bases, dict buffers, int64_t first, int64_t last, int64_t batch, int64_t rows,
                      double seconds) except -1:
        """Run with these buffers, whose addresses are ``bases``, the lock being held. See ``run``."""
        cdef int64_t k
        if not self.breaks:
            with nogil:
                k = program_run(&self.c, bases, first, last, batch, rows, seconds)
            return k
        arrays = self._arrays(buffers)
        for k in range(first, last):
            self._in_stretches(&self.c, self.breaks, bases, arrays, k, batch, rows)
            if seconds > 0:  # should a step in Python fail, it is known how many batches were done before
                return k + 1
        return last

    cdef _in_stretches(self, program *p, list breaks, void *const *bases, dict arrays, int64_t k, int64_t batch,
                       int64_t rows):
        """Run batch k: the engine up to a step in Python, that step, and so on."""
        cdef int32_t done = 0, stop
        cdef int64_t size = min(batch, rows - k * batch)
        with nogil:
            program_begin(p, bases, k, batch, rows)
        for stop, planned in breaks:
            if stop > done:
                with nogil:
                    program_steps(p, size, done, stop)
            done = stop
            with np.errstate(all="ignore"):
                execute(planned, *views(planned, arrays, k, batch, size))
        if p.n_steps > done:
            with nogil:
                program_steps(p, size, done, p.n_steps)

    def _arrays(self, buffers):
        """The flat arrays of all buffers by name."""
        own = {self.names[0]: self.arena, self.names[1]: self.constants}
        return {name: array.reshape(-1) for name, array in buffers.items()} | own

    def prepare(self, buffers):
        """See ``fastnn.backends.numpy.Program.prepare``. The programs of the other lanes share the result."""
        cdef int number
        with self.lock:
            for number in self.first_slots:
                self.bases[number] = address(buffers[self.names[number]])
            if self.first_breaks:
                batch = self.first.batch
                self._in_stretches(&self.first, self.first_breaks, self.bases, self._arrays(buffers), 0, batch, batch)
            else:
                with nogil:
                    program_run(&self.first, self.bases, 0, 1, self.first.batch, self.first.batch, 0.0)

    def time_steps(self, buffers, int64_t rows):
        """See ``fastnn.backends.numpy.Program.time_steps``."""
        cdef double[::1] seconds = np.zeros(self.c.n_steps + 1)
        cdef int32_t done = 0, stop
        if rows > self.c.batch or rows < 1:
            raise ValueError(f"native: rows must be 1 to {self.c.batch}. Received: {rows}")
        with self.lock:
            self._bind(buffers)
            arrays, taken = self._arrays(buffers), []
            with nogil:
                program_begin(&self.c, self.bases, 0, rows, rows)
            for stop, planned in (*self.breaks, (self.c.n_steps, None)):
                with nogil:
                    program_time(&self.c, rows, done, stop, &seconds[0])
                taken += list(seconds)[: stop - done]
                done = stop
                if planned is not None:
                    start = time.perf_counter()
                    with np.errstate(all="ignore"):
                        execute(planned, *views(planned, arrays, 0, rows, rows))
                    taken.append(time.perf_counter() - start)
        return taken

    def run(self, buffers, int64_t first, int64_t last, int64_t batch, int64_t rows, double seconds=0.0):
        """See ``fastnn.backends.numpy.Program.run``."""
        if batch > self.c.batch or batch < 1:
            raise ValueError(f"native: batch must be 1 to {self.c.batch}. Received: {batch}")
        with self.lock:
            self._bind(buffers)
            return self._run(self.bases, buffers, first, last, batch, rows, seconds)

    def run_apart(self, buffers, int64_t last, int64_t batch, int64_t rows):
        """Run all batches 0 to ``last - 1``, which must not depend on each other, each thread its own.

        With steps in Python, which are not for other threads, all threads work on each batch together.
        """
        cdef program *programs[MAX_LANES]
        cdef void **bases[MAX_LANES]
        cdef int lanes, lane
        cdef Program other
        if batch > self.c.batch or batch < 1:
            raise ValueError(f"native: batch must be 1 to {self.c.batch}. Received: {batch}")
        if self.breaks:
            self.run(buffers, 0, last, batch, rows)
            return
        with self.lock:
            lanes = <int>min(team_size(), last)
            while len(self.others) < lanes - 1:
                self.others.append(Program(self.plan, self))
            self._bind(buffers)
            programs[0] = &self.c
            bases[0] = self.bases
            for lane in range(1, lanes):
                other = self.others[lane - 1]
                other._bind(buffers)
                programs[lane] = &other.c
                bases[lane] = other.bases
            with nogil:
                program_run_apart(programs, <void *const *const *>bases, lanes, last, batch, rows)

    def answer(self, buffers, input_shape, output_shape):
        """A function of an array that runs this Program of one input x and one output out. See ``Answer``."""
        return Answer(self, buffers, input_shape, output_shape)


cdef class Answer:
    """Prediction with next to nothing around it: ``answer(x)`` for contiguous float32 rows that fit one batch.

    Returns the outputs, or None if ``x`` is anything else, which then goes the long way.
    """

    cdef Program program
    cdef object buffers, empty, float32
    cdef tuple input_shape, output_shape
    cdef void *bases[MAX_BUFFERS]
    cdef int x, out

    def __cinit__(self, Program program, buffers, input_shape, output_shape):
        self.program = program
        self.buffers = dict(buffers)
        self.input_shape = tuple(input_shape)
        self.output_shape = tuple(output_shape)
        self.empty = np.empty
        self.float32 = np.dtype(np.float32)
        self.x, self.out = program.slots["x"], program.slots["out"]
        with program.lock:
            program._bind(self.buffers)
            for number in range(MAX_BUFFERS):
                self.bases[number] = program.bases[number]

    def __call__(self, x):
        cdef Py_buffer view
        cdef int64_t rows, axis
        if not PyObject_CheckBuffer(x):
            return None
        try:
            PyObject_GetBuffer(x, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except (BufferError, ValueError):
            return None
        try:
            if view.ndim != 1 + len(self.input_shape) or view.format[0] != c"f" or view.format[1] != 0:
                return None
            for axis in range(1, view.ndim):
                if view.shape[axis] != <int64_t>self.input_shape[axis - 1]:
                    return None
            rows = view.shape[0]
            if rows < 1 or rows > self.program.c.batch:
                return None
            result = self.empty((rows, *self.output_shape), self.float32)
            with self.program.lock:
                self.bases[self.x] = view.buf
                self.bases[self.out] = address(result)
                if self.program.breaks:
                    given = {**self.buffers, "x": np.asarray(x), "out": result}
                    self.program._run(self.bases, given, 0, 1, rows, rows, 0.0)
                else:
                    with nogil:
                        program_run(&self.program.c, self.bases, 0, 1, rows, rows, 0.0)
            return result
        finally:
            PyBuffer_Release(&view)


def set_threads(int count):
    """Set the size of the thread team."""
    if team_set_size(count) != 0:
        raise ValueError(f"set_num_threads: n must be 1 to 256. Received: n={count}")


def threads():
    """The size of the thread team."""
    return team_size()


def isa():
    """The instruction set in use."""
    return dispatch_table().isa.decode()


def choose_isa(str name):
    """Use one instruction set from now on ("" for the best); Programs made before keep theirs."""
    if dispatch_choose(name.encode()) != 0:
        known = ", ".join(i for i in ("base", "avx2", "avx512", "neon") if dispatch_has(i.encode()))
        raise ValueError(f"FASTNN_ISA: must be an instruction set that this machine has: {known}. Received: {name!r}")


def isas():
    """The instruction sets of this machine and build."""
    return [name for name in ("base", "avx2", "avx512", "neon") if dispatch_has(name.encode())]


def peak_gflops(double seconds=0.1):
    """GFLOP/s of multiply-adds in registers, all threads together: what products are measured against."""
    with nogil:
        seconds = program_peak(seconds)
    return seconds / 1e9
