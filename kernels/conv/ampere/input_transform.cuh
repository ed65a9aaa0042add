// activation(scale * x + shift) on a slice of A that has landed in shared memory: what batch norm owes, paid by the warp
// that made the copies, before the barrier that shows them to the other warps.
//
// A thread copies chunks of 16 bytes. In bfloat16 those are eight channels, whose scales are two loads of 16 bytes, and
// in each a warp would ask for every other 16 bytes only. So neighbouring lanes, which copied the same chunk of
// neighbouring rows, share the work: one takes the first four channels of both rows, the other the last four. Then
// eight lanes load 128 bytes side by side, and half as often. In TF32 a chunk is four channels: each keeps its own.
#pragma once

#include "primitives/tensor_core.cuh"

namespace ampere {

// Four neighbouring channels in shared memory.
#ifdef PRECISION_BF16
struct FourChannels {
    Pair x;

    __device__ __forceinline__ void load(unsigned address) { x = load_pair(address); }
    __device__ __forceinline__ void store(unsigned address) const { store_pair(address, x); }
    template <bool BOUNDED> __device__ __forceinline__ void transform(float4 scale, float4 shift, Bounds bounds) {
        auto transformed = [&](float x, float by, float and_by) { return activated<BOUNDED>(fmaf(by, x, and_by), bounds); };
        unsigned &low = x.word[0], &high = x.word[1];
        low = pack_bf16(transformed(__uint_as_float(low << 16), scale.x, shift.x),
                        transformed(__uint_as_float(low & 0xffff0000u), scale.y, shift.y));
        high = pack_bf16(transformed(__uint_as_float(high << 16), scale.z, shift.z),
                         transformed(__uint_as_float(high & 0xffff0000u), scale.w, shift.w));
    }
};
#else
struct FourChannels {
    Quad x;

    __device__ __forceinline__ void load(unsigned address) { x = load_quad(address); }
    __device__ __forceinline__ void store(unsigned address) const { store_quad(address, x); }
    template <bool BOUNDED> __device__ __forceinline__ void transform(float4 scale, float4 shift, Bounds bounds) {
        auto transformed = [&](float x, float by, float and_by) { return activated<BOUNDED>(fmaf(by, x, and_by), bounds); };
        unsigned(&word)[4] = x.word;
        word[0] = __float_as_uint(transformed(__uint_as_float(word[0]), scale.x, shift.x));
        word[1] = __float_as_uint(transformed(__uint_as_float(word[1]), scale.y, shift.y));
        word[2] = __float_as_uint(transformed(__uint_as_float(word[2]), scale.z, shift.z));
        word[3] = __float_as_uint(transformed(__uint_as_float(word[3]), scale.w, shift.w));
    }
};
#endif

// For COPIES chunks a thread, APART bytes from one another. Its neighbour's lie at the same place of the other of two
// rows that share a line of all banks (`copied_row`, `swizzled`).
template <int COPIES, int APART, bool BOUNDED> struct InputTransform {
    // Rows whose chunks a thread shares: its own, then its neighbour's.
    static constexpr int ROWS = LANE / 4;

    const float* norm;
    // Channels of a pixel; this thread's first one in a slice, and where it lies in a stage.
    int channels, channel;
    unsigned at;
    unsigned taps[ROWS][COPIES];
    Bounds bounds;

    // `to`, `first` and `own_taps`: where this thread's first chunk lies in a stage, its first channel in a slice, and
    // which taps of each of its pixels lie inside the image.
    __device__ __forceinline__ InputTransform(const float* norm, Bounds bounds, int channels, unsigned to, int first,
                                              const unsigned (&own_taps)[COPIES])
        : norm(norm), channels(channels), channel(first), at(to), bounds(bounds) {
        if constexpr (ROWS == 2) {
            // Which of the pair takes which four changes with every eight lanes, so that the 16 lanes whose loads of 8
            // bytes shared memory serves together ask each bank once.
            const int half = (threadIdx.x ^ threadIdx.x >> 3) & 1;
            channel += half * 4;
            at += half * 8;
        }
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            taps[0][i] = own_taps[i];
            if constexpr (ROWS == 2) taps[ROWS - 1][i] = __shfl_xor_sync(0xffffffffu, own_taps[i], 1);
        }
    }

    // Transforms a slice in place: channels from `first` on, at a tap whose bits a row must have (PixelCopies::start).
    // Every thread must have waited for its copies. What they filled with zeros stays zero: it is computed like the
    // rest and not stored, because without a branch the compiler can mix all this with the products.
    __device__ __forceinline__ void apply(unsigned stage, int first, unsigned tap) const {
        // Past the last channel there is nothing to store, but there should be something to load.
        const float* scales = norm + min(first + channel, channels - 4);
        const float4 scale = __ldg(reinterpret_cast<const float4*>(scales));
        const float4 shift = __ldg(reinterpret_cast<const float4*>(scales + channels));
        auto place = [&](int row, int i) { return stage + (at ^ row * 64) + i * APART; };
        __syncwarp();  // shows a thread what its neighbour has waited for
        FourChannels x[ROWS][COPIES];
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
#pragma unroll
            for (int i = 0; i < COPIES; ++i) x[row][i].load(place(row, i));
        }
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
#pragma unroll
            for (int i = 0; i < COPIES; ++i) {
                x[row][i].template transform<BOUNDED>(scale, shift, bounds);
                if ((tap & ~taps[row][i]) == 0) x[row][i].store(place(row, i));
            }
        }
    }
};

// For an input that owes nothing.
struct AsItIs {
    __device__ __forceinline__ void apply(unsigned, int, unsigned) const {}
};

}  // namespace ampere
