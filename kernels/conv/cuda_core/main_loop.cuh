// A matrix product on CUDA cores, C[m][n] = sum over k of A[m][k] B[k][n], in float: the heart of the convolutions of
// passes.cuh. What A and B are, and how they are gathered, is the loaders' matter (load.cuh).
//
// Tiling: a block owns M x N results, a warp 32 x 64 of them, a thread 8 x 8: rows {0, 16} + 4*(lane/8) + 0..3 and
// columns {0, 32} + 4*(lane%8) + 0..3 of its warp's. For each k a thread loads 16 floats, with four 16-byte loads, for
// 64 multiply-adds.
//
// Shared memory: two stages of DEPTH rows of A (M floats each, k-major) and DEPTH of B (N floats), so that one slice is
// multiplied while the next is on its way from global memory through registers: one barrier a slice. Rows are 4 floats
// apart: a loader whose operand has k innermost in memory writes, at a time, rows k and k + 4 of sixteen m each, and
// the distance of 4 (M + 4) = 16 mod 32 gives those 32 lanes 32 banks. 16-byte accesses stay aligned.
#pragma once

#include "primitives/element.cuh"

namespace ffma {

template <int TILE_M, int TILE_N> struct FfmaTile {
    static constexpr int M = TILE_M;
    static constexpr int N = TILE_N;
    static constexpr int DEPTH = 8;
    static constexpr int STAGE = DEPTH * (M + 4 + N + 4);  // floats
    static constexpr int WARPS_M = M / 32;
    static constexpr int WARPS_N = N / 64;
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;

    // The tile row of result i of this thread, and the tile column of its result j.
    static __device__ __forceinline__ int row(int i) {
        return threadIdx.x / 32 / WARPS_N * 32 + i / 4 * 16 + threadIdx.x % 32 / 8 * 4 + i % 4;
    }
    static __device__ __forceinline__ int column(int j) {
        return threadIdx.x / 32 % WARPS_N * 64 + j / 4 * 32 + threadIdx.x % 8 * 4 + j % 4;
    }
};

// Four neighbours, moved by one instruction.
template <typename T> struct alignas(4 * sizeof(T)) Four {
    T at[4];
};
__device__ __forceinline__ Four<float> read_four(const float* from) {
    float4 x = *reinterpret_cast<const float4*>(from);
    return Four<float>{{x.x, x.y, x.z, x.w}};
}
__device__ __forceinline__ Four<bfloat16> read_four(const bfloat16* from) {
    ushort4 x = *reinterpret_cast<const ushort4*>(from);
    return Four<bfloat16>{{{x.x}, {x.y}, {x.z}, {x.w}}};
}
__device__ __forceinline__ void write_four(float* to, const Four<float>& x) {
    *reinterpret_cast<float4*>(to) = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
}
__device__ __forceinline__ void write_four(bfloat16* to, const Four<bfloat16>& x) {
    *reinterpret_cast<ushort4*>(to) = make_ushort4(x.at[0].bits, x.at[1].bits, x.at[2].bits, x.at[3].bits);
}

// Where column m of row k lies in a staged operand of EXTENT columns.
template <int EXTENT> __device__ __forceinline__ constexpr int slot(int k, int m) { return k * (EXTENT + 4) + m; }

// The product over `slices` slices of Tile::DEPTH. Ends with a barrier: the caller may use shared memory at once.
template <class Tile, class A, class B>
__device__ __forceinline__ void multiply(float (&sum)[8][8], A& a, B& b, int slices) {
    constexpr int M = Tile::M, N = Tile::N, DEPTH = Tile::DEPTH;
    constexpr int SECOND = slot<M>(DEPTH, 0);  // where B begins in a stage
    __shared__ alignas(16) float stage[2 * Tile::STAGE];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = 0.0f;
    if (slices == 0) return;

    a.fetch();
    b.fetch();
    a.store(stage);
    b.store(stage + SECOND);
    __syncthreads();
    int now = 0;
    while (true) {
        const float* rows = stage + now + slot<M>(0, Tile::row(0));
        const float* columns = stage + now + SECOND + slot<N>(0, Tile::column(0));
        bool more = --slices > 0;
        if (more) {
            a.fetch();
            b.fetch();
        }
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
            Four<float> x[2], y[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                x[half] = read_four(rows + slot<M>(k, 16 * half));
                y[half] = read_four(columns + slot<N>(k, 32 * half));
            }
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) sum[i][j] = fmaf(x[i / 4].at[i % 4], y[j / 4].at[j % 4], sum[i][j]);
        }
        now = Tile::STAGE - now;
        if (more) {
            a.store(stage + now);
            b.store(stage + now + SECOND);
        }
        __syncthreads();
        if (!more) break;
    }
}

// v[j], this thread's part of column j of the tile, becomes the whole column's: over the four row groups of a warp by
// shuffles, over the warps in their order. Every thread of the block must call it.
template <class Tile> __device__ __forceinline__ void add_columns(float (&v)[8]) {
    __shared__ float part[Tile::WARPS_M][Tile::N];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        v[j] += __shfl_xor_sync(0xffffffffu, v[j], 8);
        v[j] += __shfl_xor_sync(0xffffffffu, v[j], 16);
    }
    if (Tile::WARPS_M == 1) return;
    int warp = threadIdx.x / 32 / Tile::WARPS_N;
    if (threadIdx.x % 32 < 8) {
#pragma unroll
        for (int j = 0; j < 8; ++j) part[warp][Tile::column(j)] = v[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        v[j] = part[0][Tile::column(j)];
#pragma unroll
        for (int other = 1; other < Tile::WARPS_M; ++other) v[j] += part[other][Tile::column(j)];
    }
    __syncthreads();
}

// Four results to memory, or as many as `columns` leaves room for. VECTOR: all or none, in one store.
template <bool VECTOR, typename T> __device__ __forceinline__ void store_four(T* to, const float (&x)[4], int columns) {
    if (VECTOR) {
        if (columns <= 0) return;
        Four<T> four;
#pragma unroll
        for (int i = 0; i < 4; ++i) four.at[i] = narrow<T>(x[i]);
        write_four(to, four);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (i < columns) to[i] = narrow<T>(x[i]);
    }
}

// The reverse; zero where there is nothing.
template <bool VECTOR, typename T>
__device__ __forceinline__ void load_four(float (&x)[4], const T* from, int columns) {
    Four<T> four = {};
    if (VECTOR) {
        if (columns > 0) four = read_four(from);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (i < columns) four.at[i] = from[i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = widen(four.at[i]);
}

}  // namespace ffma
