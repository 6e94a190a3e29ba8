"""PyTorch: fused Adam, batches by index, no DataLoader; eager, traced and compiled, the best of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastnn.benchmarking.images import Operation
from fastnn.benchmarking.networks import Application
from fastnn.benchmarking.peers import Case, repeated
from fastnn.benchmarking.peers.onnx_networks import channels_back
from fastnn.benchmarking.peers.torch_networks import network
from fastnn.benchmarking.workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Net, Workload, table, weights


def cases(workload: Workload, threads: int, thorough: bool) -> list[Case]:
    torch.set_num_threads(threads)
    if workload.operation is not None:
        return [operation(workload.operation, layout) for layout in LAYOUTS]
    if workload.application is not None:
        return applications(workload, workload.application, thorough)
    if workload.kind == "memory":
        return [Case("eager, fused Adam", training(workload, gather="step"), workload.steps)]
    if workload.kind == "matmul":
        return [product(workload)]
    if workload.kind == "predict":
        return predictions(workload, thorough)
    if workload.kind == "script":
        return [Case("eager, fused Adam", script(workload))]
    steps = workload.steps
    found = [
        Case("eager, fused Adam, index_select", training(workload, gather="step"), steps),
        Case("eager, fused Adam, gather once an epoch", training(workload, gather="epoch"), steps),
    ]
    if workload.network.image is not None:
        found.append(Case("the same, channels last", training(workload, gather="step", layout="channels last"), steps))
    if thorough:
        found.append(Case("torch.compile, fused Adam", training(workload, gather="step", compiled=True), steps))
    return found


LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def logits_of(net: Net, layout: str = "contiguous") -> nn.Sequential:
    layers: list[nn.Module] = []
    values = weights(net)
    if net.image is not None:
        layers.append(nn.Unflatten(1, (net.image[2], *net.image[:2])))  # channels first: see tensors
        for index, (c, f) in enumerate(zip(net.channels, net.channels[1:], strict=False)):
            convolution = nn.Conv2d(c, f, 3, padding=1)
            with torch.no_grad():
                convolution.weight.copy_(torch.from_numpy(values[2 * index].transpose(3, 2, 0, 1).copy()))
                convolution.bias.copy_(torch.from_numpy(values[2 * index + 1]))
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
        layers.append(nn.Flatten())
        values = values[2 * len(net.filters) :]
        kernel = values[0].reshape(*net.left, net.filters[-1], -1)  # flattened with the channels first here
        values[0] = kernel.transpose(2, 0, 1, 3).reshape(net.sizes[0], -1)
    for index, (k, m) in enumerate(zip(net.sizes, net.sizes[1:], strict=False)):
        linear = nn.Linear(k, m)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(values[2 * index].T)))
            linear.bias.copy_(torch.from_numpy(values[2 * index + 1]))
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    return model.to(memory_format=LAYOUTS[layout]) if net.image is not None else model


def loss_of(net: Net) -> nn.Module:
    return nn.BCEWithLogitsLoss() if net.last == "sigmoid" else nn.CrossEntropyLoss()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True)


def tensors(net: Net, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = table(net, rows)
    if net.image is not None:
        x = np.moveaxis(x.reshape(rows, *net.image), -1, 1).reshape(rows, -1).copy()
    if net.last == "sigmoid":
        return torch.from_numpy(x), torch.from_numpy(y[:, None].astype(np.float32))
    return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


def training(
    workload: Workload, gather: str, compiled: bool = False, layout: str = "contiguous"
) -> Callable[[int], float]:
    net, rows, batch = workload.network, workload.rows, workload.batch
    model, loss_function, (x, y) = logits_of(net, layout), loss_of(net), tensors(net, rows)
    optimizer = adam(model)

    def loss_on(xb: torch.Tensor, yb: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = loss_function(model(xb), yb)
        return loss

    measure: Any = torch.compile(loss_on, dynamic=False) if compiled else loss_on

    def run(epochs: int) -> float:
        mean = float("nan")
        for _ in range(epochs):
            order, total = torch.randperm(rows), torch.zeros(())
            if gather == "epoch":
                batches: Any = zip(x[order].split(batch), y[order].split(batch), strict=True)
            else:
                batches = ((x.index_select(0, part), y.index_select(0, part)) for part in order.split(batch))
            for xb, yb in batches:
                optimizer.zero_grad(set_to_none=True)
                loss = measure(xb, yb)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(xb)
            mean = total.item() / rows
        return mean

    return run


def script(workload: Workload) -> Callable[[int], float]:
    """The whole job: a fifth held out, loss and accuracy of both parts each epoch, one line of progress each epoch."""
    net = workload.network
    x, y = tensors(net, workload.rows)
    held = workload.rows // 5
    xv, yv, xt, yt = x[:held], y[:held], x[held:], y[held:]
    loss_function = loss_of(net)

    def fit() -> float:
        model, lines = logits_of(net), io.StringIO()
        optimizer, mean = adam(model), float("nan")
        for epoch in range(workload.epochs):
            total, right = torch.zeros(()), torch.zeros(())
            for part in torch.randperm(len(xt)).split(workload.batch):
                xb, yb = xt.index_select(0, part), yt.index_select(0, part)
                optimizer.zero_grad(set_to_none=True)
                logits = model(xb)
                loss = loss_function(logits, yb)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(xb)
                right += ((logits.detach() > 0) == (yb > 0.5)).sum()
            with torch.inference_mode():
                logits = model(xv)
                held_loss, held_right = loss_function(logits, yv).item(), ((logits > 0) == (yv > 0.5)).sum().item()
            mean = total.item() / len(xt)
            lines.write(f"{epoch}: {mean:.4f} {right.item() / len(xt):.4f} {held_loss:.4f} {held_right / held:.4f}\n")
        return mean

    return repeated(fit)


def predictions(workload: Workload, thorough: bool) -> list[Case]:
    net = workload.network
    x, _ = tensors(net, workload.rows)
    model = nn.Sequential(logits_of(net), nn.Sigmoid() if net.last == "sigmoid" else nn.Softmax(dim=1)).eval()
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(model, x))
        tuned = torch.jit.optimize_for_inference(torch.jit.trace(model, x))
    candidates = [("eager", model), ("traced, frozen", traced), ("traced, optimized", tuned)]
    if thorough or workload.rows >= 10_000:  # it wins on large batches only
        candidates.append(("torch.compile", torch.compile(model, dynamic=False)))
    return [Case(setting, inference(call, x)) for setting, call in candidates]


def inference(call: Any, x: torch.Tensor) -> Callable[[int], Any]:
    def run(n: int) -> Any:
        with torch.inference_mode():
            return repeated(lambda: call(x))(n).numpy()

    return run


def application_of(work: Application) -> nn.Module:
    """A network of the literature, giving logits, with the weights that all contestants get."""
    model = network(work.name, work.shape, work.classes, **work.options)
    state = {name: torch.from_numpy(work.entry(name, tuple(value.shape))) for name, value in model.state_dict().items()}
    model.load_state_dict({name: value for name, value in state.items() if value.dim()}, strict=False)
    return model


def layout_of(work: Application, layout: str) -> torch.memory_format:
    return torch.channels_last_3d if layout == "channels last" and len(work.shape) == 4 else LAYOUTS[layout]


def application_data(work: Application, rows: int, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    memory = layout_of(work, layout)
    x, y = work.data(rows)
    xt = torch.from_numpy(np.moveaxis(x, -1, 1)).contiguous(memory_format=memory)
    if work.classes == 1:
        return xt, torch.from_numpy(np.moveaxis(y, -1, 1)).contiguous(memory_format=memory)
    return xt, torch.from_numpy(y.astype(np.int64))


def applications(workload: Workload, work: Application, thorough: bool) -> list[Case]:
    """Training: eager in both layouts, compiled if thorough. Prediction: also traced and optimized."""
    if workload.kind == "first":
        return [
            Case(
                "eager, fused Adam", repeated(lambda: application_training(workload, work, "contiguous", fresh=True)(1))
            )
        ]
    if workload.kind == "memory":
        return [Case("eager, fused Adam, channels last", application_training(workload, work, "channels last"))]
    found = []
    for layout in LAYOUTS:
        if workload.kind == "train":
            found.append(Case(f"eager, fused Adam, {layout}", application_training(workload, work, layout)))
            if thorough:
                run = application_training(workload, work, layout, compiled=True)
                found.append(Case(f"torch.compile, fused Adam, {layout}", run))
            continue
        x, _ = application_data(work, workload.rows, layout)
        last = nn.Sigmoid() if work.classes == 1 else nn.Softmax(dim=1)
        model = nn.Sequential(application_of(work), last).eval().to(memory_format=layout_of(work, layout))
        with torch.inference_mode():
            candidates = [("eager", model), ("traced, frozen", torch.jit.freeze(torch.jit.trace(model, x)))]
            candidates.append(("traced, optimized", torch.jit.optimize_for_inference(torch.jit.trace(model, x))))
        if thorough:
            candidates.append(("torch.compile", torch.compile(model, dynamic=False)))
        found += [Case(f"{setting}, {layout}", channels_back(inference(call, x))) for setting, call in candidates]
    return found


def application_training(
    workload: Workload, work: Application, layout: str, compiled: bool = False, fresh: bool = False
) -> Callable[[int], float]:
    """Steps on one batch that is there already. `fresh`: with weights drawn by the library."""
    model = network(work.name, work.shape, work.classes, **work.options) if fresh else application_of(work)
    model = model.to(memory_format=layout_of(work, layout)).train()
    x, y = application_data(work, workload.rows, layout)
    loss_function: nn.Module = nn.BCEWithLogitsLoss() if work.classes == 1 else nn.CrossEntropyLoss()
    optimizer = adam(model)

    def loss_on(xb: torch.Tensor, yb: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = loss_function(model(xb), yb)
        return loss

    measure: Any = torch.compile(loss_on, dynamic=False) if compiled else loss_on

    def run(steps: int) -> float:
        loss = torch.zeros(())
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = measure(x, y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def operation(work: Operation, layout: str) -> Case:
    """One operation in one memory layout; the results are given back with the channels last."""
    arrays, rank = work.arrays(), len(work.space)
    formats = {
        1: torch.contiguous_format,
        2: LAYOUTS[layout],
        3: torch.channels_last_3d if layout == "channels last" else torch.contiguous_format,
    }
    memory = {"memory_format": formats[rank]}

    def channels_first(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.moveaxis(array, -1, 1)).contiguous(**memory)

    x, g = channels_first(arrays["x"]), channels_first(arrays["g"])
    wrt = [] if work.first else [x]
    window: dict[str, Any] = {"stride": work.stride, "padding": work.windowed["pads"][0][0]}
    convolution = getattr(functional, f"conv{rank}d")
    if work.op.endswith("conv"):
        w = torch.from_numpy(np.moveaxis(arrays["w"], (-1, -2), (0, 1)))
        groups = work.groups if work.op == "conv" else work.c
        w = (w if work.op == "conv" else w.transpose(0, 1)).contiguous(**memory)
        wrt.append(w)
        window |= {"dilation": work.dilation, "groups": groups}
        call: Callable[[], torch.Tensor] = lambda: convolution(x, w, **window)  # noqa: E731
    elif work.op == "batch_norm":
        gamma, beta = torch.from_numpy(arrays["gamma"]), torch.from_numpy(arrays["beta"])
        wrt += [gamma, beta]
        call = lambda: functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3)  # noqa: E731
    elif work.op.startswith("upsample"):
        mode = work.op.removeprefix("upsample_")
        align = {"align_corners": False} if mode == "bilinear" else {}
        call = lambda: functional.interpolate(x, scale_factor=work.kernel, mode=mode, **align)  # noqa: E731
    else:
        pool = getattr(functional, {"max_pool": "max_pool2d", "average_pool": "avg_pool2d"}[work.op])
        call = lambda: pool(x, work.kernel, work.stride)  # noqa: E731

    def run(n: int) -> Any:
        results: list[torch.Tensor] = []
        if work.gradients:
            for tensor in wrt:
                tensor.requires_grad_(True)
            for _ in range(n):
                y = call()
                results = [y.detach(), *torch.autograd.grad(y, wrt, g)]
        else:
            with torch.inference_mode():
                results = [repeated(call)(n)]
        return [back(result, number) for number, result in enumerate(results)]

    def back(tensor: torch.Tensor, number: int) -> Any:
        array = tensor.numpy()
        if array.ndim == 1:
            return array
        if number and work.op.endswith("conv") and wrt[number - 1] is not x:
            array = np.moveaxis(array, (0, 1), (-1, -2))
            return array if work.op == "conv" else array.swapaxes(-1, -2)
        return np.moveaxis(array, 1, -1)

    return Case(layout, run)


def product(workload: Workload) -> Case:
    assert workload.product is not None
    a, b = workload.product.operands()
    left, right = (torch.from_numpy(array) for array in workload.product.views(a, b))
    out = torch.empty(workload.product.out_shape)

    def run(n: int) -> Any:
        with torch.inference_mode():
            return repeated(lambda: torch.mm(left, right, out=out))(n).numpy()

    return Case("mm", run)
