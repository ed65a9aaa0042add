// bfloat16 without the toolkit's header: the type, its way to float and back, and 16 bytes of either.
#pragma once

// The upper half of a float. A type of its own, so that nobody adds two by accident.
struct bfloat16 {
    unsigned short bits;
};

// 16 bytes that one instruction moves.
struct alignas(16) Quad {
    unsigned word[4];
};

// Through the compiler's own vector type: it takes a load of a Quad apart into its words.
__device__ __forceinline__ Quad load_quad(const void* from) {
    uint4 quad = *static_cast<const uint4*>(from);
    return Quad{{quad.x, quad.y, quad.z, quad.w}};
}

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
