"""Compiles our Triton kernels to PTX for sm_80 and sm_90, without a GPU; tests/triton.rs runs them.

    pip install triton==3.9.0
    python3 compile.py

Triton's code generator is proven on hardware: what it emits must give the right numbers on the simulated GPU too.
The first line of each file says what a launch needs: bytes of dynamic shared memory and threads a block.
"""

import os
import pathlib

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

OUT = pathlib.Path(__file__).parent.parent / "ptx" / "triton"


@triton.jit
def matmul(c, a, b, m, n, k, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """C[m,n] = A[m,k] B[k,n] in f32, any extents, pipelined through cp.async."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for k0 in range(0, k, BK):
        x = tl.load(a + rows[:, None] * k + (k0 + depth)[None, :],
                    mask=(rows[:, None] < m) & ((k0 + depth)[None, :] < k), other=0.0)
        y = tl.load(b + (k0 + depth)[:, None] * n + columns[None, :],
                    mask=((k0 + depth)[:, None] < k) & (columns[None, :] < n), other=0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    tl.store(c + rows[:, None] * n + columns[None, :], total, mask=(rows[:, None] < m) & (columns[None, :] < n))


@triton.jit
def matmul_tma(d, a, b, k, SPLITS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The same for Hopper, through tensor maps; with SPLITS, blocks share out k and add up their parts in D."""
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    total = tl.zeros((BM, BN), tl.float32)
    for k0 in range(tl.program_id(2) * BK, k, SPLITS * BK):
        total = tl.dot(a.load([row, k0]), b.load([k0, column]), total)
    if SPLITS > 1:
        d.atomic_add([row, column], total)
    else:
        d.store([row, column], total)


@triton.jit
def matmul_made_maps(d, a, b, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The same, through tensor maps that each block makes itself."""
    to = tl.make_tensor_descriptor(d, [m, n], [n, 1], [BM, BN])
    x = tl.make_tensor_descriptor(a, [m, k], [k, 1], [BM, BK])
    y = tl.make_tensor_descriptor(b, [k, n], [n, 1], [BK, BN])
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    total = tl.zeros((BM, BN), tl.float32)
    for k0 in range(0, k, BK):
        total = tl.dot(x.load([row, k0]), y.load([k0, column]), total)
    to.store([row, column], total)


@triton.jit
def softmax(out, x, n, B: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, B)
    value = tl.load(x + row * n + column, mask=column < n, other=-float("inf"))
    e = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * n + column, e / tl.sum(e, 0), mask=column < n)


@triton.jit
def layer_norm(out, x, scale, shift, n, B: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, B)
    inside = column < n
    value = tl.load(x + row * n + column, mask=inside, other=0.0)
    mean = tl.sum(value, 0) / n
    centred = tl.where(inside, value - mean, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, 0) / n + 1e-5)
    normal = centred / deviation * tl.load(scale + column, mask=inside) + tl.load(shift + column, mask=inside)
    tl.store(out + row * n + column, normal, mask=inside)


@triton.jit
def sum_atomic(total, x, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    tl.atomic_add(total, tl.sum(tl.load(x + at, mask=at < n, other=0.0), 0))


@triton.jit
def convolution(out, x, w, C: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BM: tl.constexpr):
    """A 3x3 convolution with one pixel of zero padding, as an implicit product: NHWC (one image, P x P), KRSC."""
    pixel = tl.program_id(0) * BM + tl.arange(0, BM)
    row, column = pixel // P, pixel % P
    c, k = tl.arange(0, C), tl.arange(0, K)
    total = tl.zeros((BM, K), tl.float32)
    for tap in range(9):
        h, v = row + tap // 3 - 1, column + tap % 3 - 1
        inside = (pixel < P * P) & (h >= 0) & (h < P) & (v >= 0) & (v < P)
        patch = tl.load(x + ((h * P + v) * C)[:, None] + c[None, :], mask=inside[:, None], other=0.0)
        weight = tl.load(w + (k * 9 * C + tap * C)[None, :] + c[:, None])
        total = tl.dot(patch, weight, total)
    tl.store(out + pixel[:, None] * K + k[None, :], total, mask=pixel[:, None] < P * P)


def write(name, kernel, signature, constants, capability=80, warps=4, stages=3, file=None):
    source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    for map in compiled.metadata.tensordesc_meta or []:
        assert map["swizzle"] == 3 and map["block_size"][1] * map["elem_size"] == 128, map
    ptx = compiled.asm["ptx"].rstrip("\0")
    OUT.mkdir(exist_ok=True)
    (OUT / f"{file or name}.ptx").write_text(f"// shared {compiled.metadata.shared} threads {warps * 32}\n{ptx}")


def main():
    # What has no product is the same code for sm_90.
    for name, element, precision, capability in [
        ("matmul_f32", "fp32", "ieee", 80),
        ("matmul_f32_sm90", "fp32", "ieee", 90),
        ("matmul_tf32", "fp32", "tf32", 80),
        ("matmul_f16", "fp16", "tf32", 80),
        ("matmul_bf16", "bf16", "tf32", 80),
    ]:
        signature = {"c": "*fp32", "a": f"*{element}", "b": f"*{element}", "m": "i32", "n": "i32", "k": "i32"}
        write(name, matmul, signature, {"PRECISION": precision, "BM": 64, "BN": 64, "BK": 32}, capability)
        if capability == 80 and precision == "tf32":
            # Warpgroup products from shared memory, filled by cp.async.
            tile = {"PRECISION": precision, "BM": 128, "BN": 64, "BK": 32 if element == "fp32" else 64}
            write(name, matmul, signature, tile, capability=90, file=f"{name}_sm90")
    # Boxes and swizzles of the maps, which tests/triton.rs makes: D 32 singles of 64 rows, A and B 64 halves of 64 rows
    # (128 rows of A in bfloat16), all within 128 bytes.
    for name, element, rows, splits in [("matmul_tma", "fp16", 64, 1), ("matmul_tma_split", "bf16", 128, 3)]:
        maps = {"d": ("fp32", rows, 64), "a": (element, rows, 64), "b": (element, 64, 64)}
        signature = {name: f"tensordesc<{kind}[{m}, {n}]>" for name, (kind, m, n) in maps.items()} | {"k": "i32"}
        write("matmul_tma", matmul_tma, signature, {"SPLITS": splits, "BM": rows, "BN": 64, "BK": 64}, 90, file=name)
    # Three maps of 128 bytes a block, in memory that the launch gives.
    signature = {"d": "*fp32", "a": "*fp16", "b": "*fp16", "m": "i32", "n": "i32", "k": "i32"}
    write("matmul_made_maps", matmul_made_maps, signature, {"BM": 64, "BN": 64, "BK": 64}, 90)
    write("softmax", softmax, {"out": "*fp32", "x": "*fp32", "n": "i32"}, {"B": 512})
    pointers = {name: "*fp32" for name in ("out", "x", "scale", "shift")}
    write("layer_norm", layer_norm, pointers | {"n": "i32"}, {"B": 512})
    write("sum_atomic", sum_atomic, {"total": "*fp32", "x": "*fp32", "n": "i32"}, {"B": 1024})
    write("convolution", convolution, {"out": "*fp32", "x": "*bf16", "w": "*bf16"}, {"C": 32, "K": 32, "P": 19, "BM": 64})


main()
