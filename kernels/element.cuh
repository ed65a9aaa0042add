// What activations are made of, and how they become floats and back.
//
// A kernel is compiled once a precision. PRECISION_BF16 stores activations, their gradients and the convolutions' copy of the
// weights in bfloat16; PRECISION_TF32 and PRECISION_F32 store them in float. Sums, statistics, parameters and losses are
// float everywhere.
#pragma once

#if defined(PRECISION_BF16) + defined(PRECISION_TF32) + defined(PRECISION_F32) != 1
#error "compile with one of -DPRECISION_BF16, -DPRECISION_TF32, -DPRECISION_F32"
#endif

// The upper half of a float. A type of its own, so that nobody adds two by accident.
struct bfloat16 {
    unsigned short bits;
};

#ifdef PRECISION_BF16
using element = bfloat16;
#else
using element = float;
#endif

// Elements in the 16 bytes of the widest load.
constexpr int LANE = 16 / sizeof(element);

// 16 bytes that one instruction moves.
struct alignas(16) Quad {
    unsigned word[4];
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

// Two floats rounded to nearest even, `low` in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bfloat16 narrow<bfloat16>(float x) {
    return bfloat16{static_cast<unsigned short>(pack_bf16(x, 0.0f))};
}

// The elements of a quad as floats, and back.
__device__ __forceinline__ void unpack(const Quad& quad, float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = __uint_as_float(quad.word[i]);
}
__device__ __forceinline__ void unpack(const Quad& quad, float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = __uint_as_float(quad.word[i] << 16);
        x[2 * i + 1] = __uint_as_float(quad.word[i] & 0xffff0000u);
    }
}
__device__ __forceinline__ Quad pack(const float (&x)[4]) {
    return Quad{{__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])}};
}
__device__ __forceinline__ Quad pack(const float (&x)[8]) {
    return Quad{{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])}};
}

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
