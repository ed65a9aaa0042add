"""numba.cuda, unmodified, on the simulated GPU: vector add, a reduction in shared memory, a tiled matrix product.

tests/numba.rs installs requirements.txt and runs this. By hand:

    pip install -r requirements.txt
    mkdir driver && ln -s ../target/release/libgpusim.so driver/libcuda.so.1
    LD_LIBRARY_PATH=driver python3 client.py
"""

import numpy as np
from numba import cuda, float32

TILE = 16


@cuda.jit
def add(c, a, b):
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


@cuda.jit
def total(out, x):
    values = cuda.shared.array(128, float32)
    t, i = cuda.threadIdx.x, cuda.grid(1)
    values[t] = x[i] if i < x.size else 0
    cuda.syncthreads()
    half = 64
    while half > 0:
        if t < half:
            values[t] += values[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        cuda.atomic.add(out, 0, values[0])


@cuda.jit
def matmul(c, a, b):
    x, y = cuda.shared.array((TILE, TILE), float32), cuda.shared.array((TILE, TILE), float32)
    i, j = cuda.grid(2)
    ty, tx = cuda.threadIdx.x, cuda.threadIdx.y
    value = float32(0)
    for k in range(0, a.shape[1], TILE):
        x[ty, tx] = a[i, k + tx] if i < a.shape[0] and k + tx < a.shape[1] else 0
        y[ty, tx] = b[k + ty, j] if k + ty < b.shape[0] and j < b.shape[1] else 0
        cuda.syncthreads()
        for inner in range(TILE):
            value += x[ty, inner] * y[inner, tx]
        cuda.syncthreads()
    if i < c.shape[0] and j < c.shape[1]:
        c[i, j] = value


def main():
    device = cuda.get_current_device().name
    print(device.decode() if isinstance(device, bytes) else device)
    random = np.random.default_rng(1)
    a, b = random.random((2, 1000), np.float32)
    c = np.zeros_like(a)
    add[8, 128](c, a, b)
    assert (c == a + b).all()
    out = np.zeros(1, np.float32)
    total[8, 128](out, a)
    assert np.allclose(out, a.sum(), rtol=1e-5), (out, a.sum())
    a, b = random.random((50, 40), np.float32), random.random((40, 70), np.float32)
    c = np.zeros((50, 70), np.float32)
    matmul[(4, 5), (TILE, TILE)](c, a, b)
    assert np.allclose(c, a @ b, rtol=1e-5)
    print("numba.cuda: vector add, reduction and matrix product are right")


main()
