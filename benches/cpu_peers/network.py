"""A network of this project in PyTorch, made of the list of layers and the tensors that the bench writes into one safetensors file."""

import json

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional


class Pad(nn.Module):
    """So many rows and columns of `value` before the image, and so many behind it."""

    def __init__(self, before, after, value=0.0):
        super().__init__()
        self.sides, self.value = (before, after, before, after), value

    def forward(self, x):
        return functional.pad(x, self.sides, value=self.value)


class Add(nn.Module):
    """The sum of two values, in the place of the first where nobody else reads that."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, a, b):
        return a.add_(b) if self.in_place else a + b


class Network(nn.Module):
    """Computes layer by layer, and lets go of each value behind its last reader."""

    def __init__(self, file):
        super().__init__()
        with safe_open(file, "pt") as opened:
            self.layers = json.loads(opened.metadata()["layers"])
            self.tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        self.readers = [[] for _ in self.layers]
        for at, layer in enumerate(self.layers):
            for value in layer["inputs"]:
                self.readers[value].append(at)
        # What PyTorch's convolutions and pools pad by themselves is no layer of its own: the layer behind it has both.
        self.pads = {}
        self.steps = [(at, layer["inputs"], self.module(at, layer)) for at, layer in enumerate(self.layers) if at > 0]
        self.steps = [step for step in self.steps if step[2] is not None]
        self.steps = [(at, [self.pads.get(value, (value,))[0] for value in inputs], module) for at, inputs, module in self.steps]
        self.modules_of_steps = nn.ModuleList(module for _, _, module in self.steps)
        last = {value: at for at, inputs, _ in self.steps for value in inputs}
        self.frees = {at: [value for value, reader in last.items() if reader == at] for at, _, _ in self.steps}
        del self.tensors, self.readers, self.pads

    def forward(self, x):
        values = {0: x}
        for at, inputs, module in self.steps:
            values[at] = module(*[values[value] for value in inputs])
            for value in self.frees[at]:
                del values[value]
        return values[self.steps[-1][0]]

    def alone(self, value):
        """Whether one layer reads a value, so that it may overwrite it. Nobody may overwrite the images."""
        return value > 0 and len(self.readers[value]) == 1

    def tensor(self, layer, name):
        return self.tensors.get(f"{layer['name']}/{name}")

    def padding(self, layer):
        """What a convolution or a pool pads by, that of the layer in front of it included."""
        _, in_front = self.pads.get(layer["inputs"][0], (None, 0))
        return [side + in_front for side in layer["pad"]]

    def module(self, at, layer):
        """The layer's module, or None if the layer behind it does its work."""
        op, inputs = layer["op"], layer["inputs"]
        behind = [self.layers[reader]["op"] for reader in self.readers[at]]
        if op == "zero_pad":
            pad = layer["pad"]
            # A pool sees minus infinity where it pads by itself, which is as good as a zero beside values that a ReLU has left.
            of_relu = self.layers[inputs[0]]["op"] == "activation"
            if pad[0] == pad[1] and (behind in (["conv"], ["depthwise"]) or (behind == ["max_pool"] and of_relu)):
                self.pads[at] = (inputs[0], pad[0])
                return None
            return Pad(*pad)
        if op in ("conv", "depthwise", "separable"):
            return self.convolution(layer)
        if op == "batch_norm":
            norm = nn.BatchNorm2d(layer["channels"], eps=layer["epsilon"], momentum=0.01)
            names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
            norm.load_state_dict({theirs: self.tensor(layer, ours) for theirs, ours in names.items()}, strict=False)
            return norm
        if op == "activation":
            in_place = self.alone(inputs[0]) and self.layers[inputs[0]]["op"] != "activation"
            return {"relu": nn.ReLU, "relu6": nn.ReLU6, "linear": nn.Identity}[layer["activation"]](in_place)
        if op == "max_pool":
            before, after = self.padding(layer)
            if before == after:
                return nn.MaxPool2d(layer["window"], layer["stride"], before)
            return nn.Sequential(Pad(before, after, float("-inf")), nn.MaxPool2d(layer["window"], layer["stride"]))
        if op == "add":
            return Add(self.alone(inputs[0]))
        if op == "global_pool":
            pool = {"average": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}[layer["pooling"]]
            return nn.Sequential(pool(1), nn.Flatten())
        if op == "dense":
            weights, bias = self.tensor(layer, "kernel"), self.tensor(layer, "bias")
            linear = nn.Linear(weights.shape[1], weights.shape[0])
            linear.load_state_dict({"weight": weights, "bias": bias})
            return nn.Sequential(linear, nn.ReLU(True)) if layer["relu"] else linear
        raise ValueError(f"no module computes the layer {layer}")

    def convolution(self, layer):
        before, after = self.padding(layer)
        modules, padding = ([], before) if before == after else ([Pad(before, after)], 0)
        kernel, bias = self.tensor(layer, "kernel"), self.tensor(layer, "bias")
        if kernel is None:
            # [R, S, C]: a filter of one channel for each.
            kernel = self.tensor(layer, "depthwise_kernel").permute(2, 0, 1).unsqueeze(1)
            groups = kernel.shape[0]
        else:
            kernel, groups = kernel.permute(0, 3, 1, 2), 1
        modules.append(conv(kernel, bias, layer["stride"], padding, groups))
        if layer["op"] == "separable":
            modules.append(conv(self.tensor(layer, "pointwise_kernel").permute(0, 3, 1, 2), None, 1, 0, 1))
        if layer.get("relu"):
            modules.append(nn.ReLU(True))
        return nn.Sequential(*modules) if len(modules) > 1 else modules[0]


def conv(kernel, bias, stride, padding, groups):
    k, c, r, _ = kernel.shape
    module = nn.Conv2d(c * groups, k, r, stride, padding, groups=groups, bias=bias is not None)
    with torch.no_grad():
        module.weight.copy_(kernel)
        if bias is not None:
            module.bias.copy_(bias)
    return module


def batch(file):
    """Images [N, H, W, 3] as the network reads them, and labels [N, genres]."""
    with safe_open(file, "pt") as opened:
        return opened.get_tensor("images"), opened.get_tensor("labels")
