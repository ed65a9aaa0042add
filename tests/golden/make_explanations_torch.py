"""Heat maps for `tests/golden.rs`, from PyTorch's autograd: Grad-CAM of ResNet-50 v1.5 on the posters and weights of the golden values.

    venv/bin/python tests/golden/make_explanations_torch.py

in the environment that `make_golden_torch.py` describes. It writes `explanations.safetensors` beside itself: `avg` and `max`
[genres, posters, 5, 5], for either global pooling.
"""

import numpy as np
import torch
from common import CLASSES
from make_golden_torch import HERE, build, images
from safetensors.numpy import save_file


def heat_maps(pooling):
    network = build(torch.float64, pooling).eval()
    features = []
    network.layer4.register_forward_hook(lambda module, inputs, output: features.append(output))
    logits = network(images(torch.float64))
    maps = []
    for genre in range(CLASSES):
        (gradient,) = torch.autograd.grad(logits[:, genre].sum(), features[0], retain_graph=True)
        weights = gradient.mean((2, 3), keepdim=True)
        maps.append(torch.relu((weights * features[0]).sum(1)).detach().numpy())
    return np.stack(maps)


maps = {pooling: heat_maps(pooling) for pooling in ["avg", "max"]}
for pooling, values in maps.items():
    print(pooling, values.shape, "largest", values.max(), "share above 0", (values > 0).mean())
save_file(maps, HERE / "explanations.safetensors", {"made_with": f"torch {torch.__version__}, float64"})
