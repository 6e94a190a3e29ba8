"""What is measured: the networks, their data and the pieces of work, declared once.

Every contestant (fastnn and each peer) receives the same `Workload` and builds from it the same network with the same
weights, the same data and the same optimizer. Sizes: N rows, K inputs of a product, M outputs of a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastnn.benchmarking.images import OPERATIONS, Floats, Operation
from fastnn.benchmarking.networks import APPLICATIONS, BATCHES, GROWING, Application
from fastnn.ops import OPS

Kind = Literal["train", "script", "predict", "matmul", "operation", "memory", "first", "import"]
Form = Literal["forward", "dx", "dw"]

LEARNING_RATE = 1e-4  # small, so that a long run stays far from saturation and denormal numbers
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True)
class Net:
    """A stack of dense layers: `sizes` K0-K1-...-KL, relu between them, `last` after the last one.

    On images (H, W, C), it has convolutions before them, 3x3, "same", relu, each followed by max pooling of 2x2; K0 is
    what they leave.
    """

    sizes: tuple[int, ...]
    last: Literal["sigmoid", "softmax"]
    image: tuple[int, int, int] | None = None
    filters: tuple[int, ...] = ()

    @property
    def inputs(self) -> int:
        """Numbers of a row: of an image, all of them."""
        return math.prod(self.image) if self.image else self.sizes[0]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the image, then the filters of each convolution."""
        return (self.image[2], *self.filters) if self.image else ()

    @property
    def left(self) -> tuple[int, int]:
        """Height and width after the convolutions."""
        assert self.image is not None
        return self.image[0] >> len(self.filters), self.image[1] >> len(self.filters)

    @property
    def classes(self) -> int:
        return max(2, self.sizes[-1])

    @property
    def name(self) -> str:
        dense = "-".join(map(str, self.sizes[1:] if self.image else self.sizes))
        if self.image is None:
            return dense
        return f"{self.image[0]}x{self.image[1]}, 3x3 convolutions {'-'.join(map(str, self.filters))}, {dense}"

    @property
    def activations(self) -> tuple[str, ...]:
        return ("relu",) * (len(self.sizes) - 2) + (self.last,)


ARTICLE = Net((30, 64, 32, 1), "sigmoid")
MLP = Net((784, 512, 512, 10), "softmax")
CNN = Net((7 * 7 * 64, 128, 10), "softmax", (28, 28, 1), (32, 64))
DEEP = Net((7 * 7 * 64, 10), "softmax", (112, 112, 3), (64, 64, 64, 64))


@dataclass(frozen=True)
class Product:
    """One matrix product as a dense layer uses it, with x (N, K), w (K, M), y (N, M).

    forward: y = x w; dx: x = y w'; dw: w = x' y. Arrays stay as they lie in memory, so two forms are transposed.
    """

    form: Form
    n: int
    k: int
    m: int

    @property
    def flops(self) -> int:
        return 2 * self.n * self.k * self.m

    @property
    def name(self) -> str:
        return f"{self.form} {self.n}x{self.k}x{self.m}"

    def operands(self) -> tuple[Floats, Floats]:
        """The two arrays read, in the order of the form: (x, w), (y, w) or (x, y)."""
        rng = np.random.default_rng(7)
        shapes = {"x": (self.n, self.k), "w": (self.k, self.m), "y": (self.n, self.m)}
        first, second = {"forward": ("x", "w"), "dx": ("y", "w"), "dw": ("x", "y")}[self.form]
        return (
            rng.standard_normal(shapes[first], dtype=np.float32),
            rng.standard_normal(shapes[second], dtype=np.float32),
        )

    @property
    def out_shape(self) -> tuple[int, int]:
        return {"forward": (self.n, self.m), "dx": (self.n, self.k), "dw": (self.k, self.m)}[self.form]

    def views(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """The operands as the two factors of an ordinary product (transposed views, no copies)."""
        return (a, b) if self.form == "forward" else (a, b.T) if self.form == "dx" else (a.T, b)


def products_of(net: Net, batch: int) -> tuple[Product, ...]:
    """Every product of one training step: no dx for the first layer, nobody needs it.

    >>> [product.name for product in products_of(Net((3, 2, 1), "sigmoid"), 8)]
    ['forward 8x3x2', 'dw 8x3x2', 'forward 8x2x1', 'dx 8x2x1', 'dw 8x2x1']
    """
    found: list[Product] = []
    for layer, (k, m) in enumerate(zip(net.sizes, net.sizes[1:], strict=False)):
        forms: tuple[Form, ...] = ("forward", "dw") if layer == 0 else ("forward", "dx", "dw")
        found += [Product(form, batch, k, m) for form in forms]
    return tuple(found)


@dataclass(frozen=True)
class Workload:
    """One piece of work that contestants do in turn.

    Args:
        key: name at the command line and in files.
        title: name in tables and charts.
        kind: train (time a step within a long fit), script (time of one whole fit), predict (time of one call),
            matmul (time of one product), operation (time of one operation on images), memory (growth of the peak memory
            in training, in bytes, in a fresh process), first (time from building a network to the end of its first
            training step, in a fresh process that has imported the library), import (time of `import` in a fresh
            process).
        net: the network; None for products and imports.
        rows: rows of the data set.
        batch: rows of a training batch, or of one prediction.
        epochs: epochs of one `script`.
        product: the product of a `matmul`.
        operation: that of an `operation`.
        application: a network of the literature, in place of `net`.
        threads: "one", or "many" to measure with one thread and with all of them.
        only_full: whether it is left out of shorter runs unless it is named.
    """

    key: str
    title: str
    kind: Kind
    net: Net | None = None
    rows: int = 0
    batch: int = 0
    epochs: int = 1
    product: Product | None = None
    operation: Operation | None = None
    application: Application | None = None
    threads: Literal["one", "many"] = "one"
    only_full: bool = False

    @property
    def steps(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return -(-self.rows // self.batch)

    @property
    def network(self) -> Net:
        if self.net is None:
            raise ValueError(f"Workload: {self.key} has no network.")
        return self.net

    @property
    def unit(self) -> str:
        if self.kind == "operation":
            return "operation"
        return {"train": "step", "script": "fit", "predict": "call", "matmul": "product"}.get(self.kind, self.kind)


NETWORKS = (
    Workload("article-step", f"Training step, {ARTICLE.name}, batch 32", "train", ARTICLE, 364, 32),
    Workload("article-fit", "Whole fit: 100 epochs, validation, progress", "script", ARTICLE, 455, 32, 100),
    Workload("article-row", f"Predict 1 row, {ARTICLE.name}", "predict", ARTICLE, 1, 1),
    Workload(
        "article-rows", f"Predict 100,000 rows, {ARTICLE.name}", "predict", ARTICLE, 100_000, 100_000, threads="many"
    ),
    Workload("mlp-step", f"Training step, {MLP.name}, batch 128", "train", MLP, 2048, 128, threads="many"),
    Workload("mlp-batch", f"Predict 128 rows, {MLP.name}", "predict", MLP, 128, 128, threads="many"),
    Workload("cnn-step", "Training step, small CNN, batch 64", "train", CNN, 1024, 64, threads="many"),
    Workload("cnn-batch", "Predict 64 images, small CNN", "predict", CNN, 64, 64, threads="many"),
)
MEMORY = (
    Workload("memory-cnn", f"Peak memory in training, {CNN.name}, batch 64", "memory", CNN, 128, 64),
    Workload("memory-deep", f"Peak memory in training, {DEEP.name}, batch 16", "memory", DEEP, 32, 16),
)
SQUARES = tuple(Product("forward", size, size, size) for size in (256, 512, 1024, 2048))


def _product(product: Product, threads: Literal["one", "many"]) -> Workload:
    key = f"matmul-{product.form}-{product.n}x{product.k}x{product.m}"
    return Workload(key, f"Product {product.name}", "matmul", product=product, threads=threads)


PRODUCTS = (
    *(_product(product, "one") for product in products_of(ARTICLE, 32)),
    *(_product(product, "many") for product in (*products_of(MLP, 128), *SQUARES)),
)
IMAGES = tuple(
    Workload(
        f"images-{operation.group}-{operation.name.replace(' ', '-')}",
        operation.name,
        "operation",
        operation=operation,
        threads="many",
    )
    for operation in OPERATIONS
)


def _applications() -> list[Workload]:
    """Training and prediction by the networks of the literature, then what only longer runs measure."""
    found: list[Workload] = []

    def add(key: str, kinds: Sequence[Kind], application: Application, batch: int, *, only_full: bool = True) -> None:
        for kind in kinds:
            name, doing = DOING[kind]
            title = f"{doing}, {application.title}, batch {batch}"
            work = Workload(f"{key}-{name}", title, kind, None, batch, batch, application=application, threads="many")
            found.append(replace(work, only_full=only_full))

    for name, (application, batch) in APPLICATIONS.items():
        add(f"net-{name}", ("train", "predict", "memory"), application, batch, only_full=False)
    add("net-unet", ("first",), *APPLICATIONS["unet"], only_full=False)
    for name, (application, usual) in APPLICATIONS.items():
        for batch in BATCHES if len(application.shape) == 3 else ():
            if batch != usual:
                add(f"batch-{name}-{batch}", ("train", "predict"), application, batch)
    for name, application in GROWING.items():
        add(f"grow-{name}", ("train", "predict"), application, 4)
    return found


#: Kind -> the end of a name, and the beginning of a title.
DOING: dict[Kind, tuple[str, str]] = {
    "train": ("step", "Training step"),
    "predict": ("predict", "Prediction"),
    "memory": ("memory", "Peak memory in training"),
    "first": ("first", "From building the network to its first step"),
}
LITERATURE = tuple(_applications())
IMPORT = Workload("import", "Import in a fresh process", "import")
WORKLOADS = {workload.key: workload for workload in (*NETWORKS, *PRODUCTS, *IMAGES, *LITERATURE, *MEMORY, IMPORT)}


def weights(net: Net) -> list[Floats]:
    """The starting weights, [kernel (K, M), bias (M,)] a layer, (3, 3, C, F) of convolutions: Glorot's uniform kernels,
    zero biases.
    """
    rng = np.random.default_rng(11)
    values: list[Floats] = []
    for c, f in zip(net.channels, net.channels[1:], strict=False):
        limit = np.sqrt(6.0 / (9 * (c + f)))
        values += [rng.uniform(-limit, limit, (3, 3, c, f)).astype(np.float32), np.zeros(f, np.float32)]
    for k, m in zip(net.sizes, net.sizes[1:], strict=False):
        limit = np.sqrt(6.0 / (k + m))
        values += [rng.uniform(-limit, limit, (k, m)).astype(np.float32), np.zeros(m, np.float32)]
    return values


def table(net: Net, rows: int) -> tuple[Floats, NDArray[np.int32]]:
    """Standard normal inputs (N, K) and labels (N,) that depend on them, with noise.

    >>> x, y = table(ARTICLE, 5)
    >>> x.shape, y.shape, sorted(set(y.tolist())) <= [0, 1]
    ((5, 30), (5,), True)
    """
    rng = np.random.default_rng(13)
    x = rng.standard_normal((rows, net.inputs), dtype=np.float32)
    scores = x @ rng.standard_normal((net.inputs, net.classes), dtype=np.float32)
    scores += rng.standard_normal(scores.shape, dtype=np.float32) * np.sqrt(net.inputs)
    return x, scores.argmax(axis=1).astype(np.int32)


def forward(net: Net, values: list[Floats], x: Floats) -> Floats:
    """The network in plain NumPy, (N, K) -> (N, M): what every contestant's prediction is checked against.

    >>> float(forward(ARTICLE, [0 * v for v in weights(ARTICLE)], table(ARTICLE, 1)[0])[0, 0])
    0.5
    """
    if net.image is not None:
        x = x.reshape(len(x), *net.image)
        window: dict[str, Any] = {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1)}
        for layer in range(len(net.filters)):
            x = np.maximum(OPS["conv"].reference(x, values[2 * layer], **window) + values[2 * layer + 1], 0)
            n, h, w, c = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
        x, values = x.reshape(len(x), -1), values[2 * len(net.filters) :]
    for layer, activation in enumerate(net.activations):
        x = x @ values[2 * layer]
        x += values[2 * layer + 1]
        if activation == "relu":
            np.maximum(x, 0, out=x)
        elif activation == "sigmoid":
            x = np.divide(1, 1 + np.exp(-x), dtype=np.float32)
        else:
            x = np.exp(x - x.max(axis=1, keepdims=True))
            x /= x.sum(axis=1, keepdims=True)
    return x


def mean_loss(net: Net, values: list[Floats], x: Floats, y: NDArray[np.int32]) -> float:
    """Mean cross-entropy of labels y (N,) under the network: where every contestant's training must start."""
    p = forward(net, values, x)
    chosen = np.where(y == 1, p[:, 0], 1 - p[:, 0]) if net.last == "sigmoid" else p[np.arange(len(y)), y]
    return float(-np.log(chosen).mean())
