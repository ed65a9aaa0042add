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

// What follows a batch norm, by the least and the largest value that it gives; infinite where it has no such bound.
struct Bounds {
    float low, high;
};

// x, or the bound that it is beyond. Lets NaN through.
__device__ __forceinline__ float bounded(float x, Bounds by) {
    asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(by.low));
    asm("min.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(by.high));
    return x;
}

// The same by bounds, or by those of a ReLU, for kernels that are compiled twice: for a ReLU it is one instruction.
template <bool BOUNDED> __device__ __forceinline__ float activated(float x, Bounds by) {
    if constexpr (BOUNDED) return bounded(x, by);
    else return relu(x);
}

// The same for the gradient: where it stops. NaN where there is no such bound, because no number compares with it.
struct Stops {
    float low, high;
};

// `dz` where z lies strictly between the bounds, 0 where it does not; NaN if z is NaN, so that a fault upstream shows.
__device__ __forceinline__ float mask(float dz, float z, Stops at) {
    float passed = z <= at.low || z >= at.high ? 0.0f : dz;
    return z == z ? passed : z;
}

// Says how many bytes of dynamic shared memory a kernel is launched with, for the table of resources.
#define SHARED_BYTES(kernel, bytes) extern "C" __constant__ const unsigned kernel##_shared_bytes = (bytes)
