// What activations are made of, and how they become floats and back.
//
// A kernel is compiled once a precision. PRECISION_BF16 stores activations, their gradients and the convolutions' copy of the
// weights in bfloat16; PRECISION_TF32 and PRECISION_F32 store them in float. Sums, statistics, parameters and losses are
// float everywhere.
#pragma once

#include "primitives/bfloat16.cuh"

#if defined(PRECISION_BF16) + defined(PRECISION_TF32) + defined(PRECISION_F32) != 1
#error "compile with one of -DPRECISION_BF16, -DPRECISION_TF32, -DPRECISION_F32"
#endif

#ifdef PRECISION_BF16
using element = bfloat16;
#else
using element = float;
#endif

// Elements in the 16 bytes of the widest load.
constexpr int LANE = 16 / sizeof(element);

// max(0, x) that lets NaN through.
__device__ __forceinline__ float relu(float x) {
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
    return y;
}

// `dz` where the ReLU behind `z` let it pass; NaN if `z` is NaN, so that a fault upstream shows.
__device__ __forceinline__ float mask(float dz, float z) { return z > 0.0f ? dz : (z <= 0.0f ? 0.0f : z); }

// Says how many bytes of dynamic shared memory a kernel is launched with, for the table of resources.
#define SHARED_BYTES(kernel, bytes) extern "C" __constant__ const unsigned kernel##_shared_bytes = (bytes)
