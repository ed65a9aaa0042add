#!/usr/bin/env python3
"""Keras's ResNet-50 with the head of this project in PyTorch, as a user of PyTorch would train it: channels last, autocast,
fused Adam, in one of three ways: eagerly, through torch.compile, or through torch.compile into CUDA graphs, which is what our step
is. Prints a JSON line a time; called by the bench `step`."""

import argparse
import contextlib
import json
import math
import statistics
import sys
import time

try:
    import torch
    from torch import nn
except ImportError as error:
    sys.exit(f"{sys.executable} has no PyTorch that loads: {error}")

WARM_UP = 5
MODES = {"compiled": "default", "reduce-overhead": "reduce-overhead"}


class ConvNorm(nn.Sequential):
    def __init__(self, c, k, size, stride=1):
        super().__init__(
            nn.Conv2d(c, k, size, stride, padding=size // 2), nn.BatchNorm2d(k, eps=1.001e-5, momentum=0.01)
        )


class Block(nn.Module):
    """1x1 with the stride, 3x3, 1x1, and a way around."""

    def __init__(self, c, width, stride, projects):
        super().__init__()
        self.reduce = ConvNorm(c, width, 1, stride)
        self.spatial = ConvNorm(width, width, 3)
        self.expand = ConvNorm(width, 4 * width, 1)
        self.projection = ConvNorm(c, 4 * width, 1, stride) if projects else nn.Identity()

    def forward(self, x):
        y = self.reduce(x).relu_()
        y = self.spatial(y).relu_()
        return (self.expand(y) + self.projection(x)).relu_()


def resnet50(genres):
    layers, c = [ConvNorm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, blocks in enumerate([3, 4, 6, 3]):
        for block in range(blocks):
            layers.append(Block(c, 64 << stage, 2 if stage > 0 and block == 0 else 1, block == 0))
            c = 256 << stage
    head = [nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, genres)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


class Arriving:
    """A number on its way to the host."""

    def __init__(self, number):
        on_gpu = number.is_cuda
        self.here = torch.empty((), pin_memory=on_gpu).copy_(number, non_blocking=on_gpu)
        self.event = torch.cuda.Event() if on_gpu else None
        if on_gpu:
            self.event.record()

    def value(self):
        if self.event:
            self.event.synchronize()
        return self.here.item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=["auto", "bf16", "tf32", "f32"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--way", choices=["eager", *MODES], required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision != "f32"
    device, n, size = torch.device(options.device), options.batch, options.image_size
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} of {sys.executable} finds no CUDA device")
    narrow = options.precision in ("auto", "bf16")
    autocast = torch.autocast(device.type, torch.bfloat16) if narrow else contextlib.nullcontext()
    mean = torch.tensor([103.939, 116.779, 123.68], device=device).view(1, 3, 1, 1)
    pixels = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8)
    targets = torch.rand(n, 7, device=device).round()
    if device.type == "cuda":
        pixels = pixels.pin_memory()

    def images():
        x = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).flip(1)
        return (x.float() - mean).contiguous(memory_format=torch.channels_last)

    def timed(step):
        times = []
        for _ in range(options.steps):
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times[WARM_UP:])

    torch.manual_seed(1)
    network = resnet50(7).to(device, memory_format=torch.channels_last)
    model = network if options.way == "eager" else torch.compile(network, mode=MODES[options.way])
    loss_of = nn.BCEWithLogitsLoss()
    adam = torch.optim.Adam(network.parameters(), lr=1e-4, eps=1e-7, fused=device.type == "cuda")

    waiting = []

    def train():
        adam.zero_grad(set_to_none=True)
        with autocast:
            logits = model(images())
        loss = loss_of(logits.float(), targets)
        loss.backward()
        adam.step()
        waiting.append(Arriving(loss.detach()))
        # The loss of the step before, read while this one runs, as ours is.
        if len(waiting) > 1:
            assert math.isfinite(waiting.pop(0).value()), "the loss is no number"

    def infer():
        with torch.inference_mode(), autocast:
            model(images()).float().sigmoid().cpu()

    engine = f"pytorch {torch.__version__} {options.way}"
    try:
        print(json.dumps({"engine": engine, "work": "train", "ms": timed(train)}), flush=True)
        network.eval()
        print(json.dumps({"engine": engine, "work": "infer", "ms": timed(infer)}), flush=True)
    except torch.cuda.OutOfMemoryError as error:
        sys.exit(f"{error} Lower --batch.")


if __name__ == "__main__":
    main()
