// The product of one 64x64 tile of a dense layer: operands from device to shared memory, and their multiplication there.
//
// An operand is seen as sides x depth: its 64 sides are rows of the tile's result for `a` and columns for `b`; the depth is what
// the product sums over. In memory either the depth is contiguous (x and w in the forward pass) or the sides are (w in the data
// gradient; dz and x in the weights'). A step of the main loop takes 32 of the depth:
//
//     ALONG_DEPTH    [64 sides][32 + 4]     a side's row is 144 bytes: eight of them begin in eight different groups of four
//                                           banks, so that ldmatrix and 16-byte loads of one k from eight sides do not collide
//     else           [32 depth][64 + 8]     a row is 288 bytes: k..k+3 by 8 sides, a tensor core's fragment, are 32 banks
//
// Both take 2304 floats, copied as they lie, so asynchronously and without a transposition.
#pragma once

#include "tensor_core.cuh"

constexpr int TILE = 64;          // rows and columns of a block's result
constexpr int STEP = 32;          // depth of one step of the main loop
constexpr int TILE_FLOATS = 2304;  // an operand of one step in shared memory

// One operand of a product.
struct Operand {
    const float* data;
    int sides, depth;
    bool wide;  // 16-byte copies: rows are a multiple of four floats and begin on 16 bytes
};

// Where (side, k) of a tile lies.
template <bool ALONG_DEPTH> __device__ __forceinline__ int tile_index(int side, int k) {
    return ALONG_DEPTH ? side * (STEP + 4) + k : k * (TILE + 8) + side;
}

// Starts a copy of 4 bytes; of zeros if not `valid`.
__device__ __forceinline__ void copy_async_word(unsigned to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0));
}

// Starts the copy of the tile at (side, k) of an operand; what lies outside it or from `end` on is zero.
template <bool ALONG_DEPTH>
__device__ __forceinline__ void copy_tile(float* tile, const Operand& from, int side, int k, int end) {
    constexpr int ROW = ALONG_DEPTH ? STEP : TILE;  // contiguous floats
    int row_length = ALONG_DEPTH ? from.depth : from.sides;
    int step = from.wide ? 4 : 1;
    for (int i = threadIdx.x * step; i < TILE * STEP; i += 256 * step) {
        int row = i / ROW, column = i % ROW;
        int tile_side = ALONG_DEPTH ? row : column, tile_k = ALONG_DEPTH ? column : row;
        bool valid = side + tile_side < from.sides && k + tile_k < end;
        long long at = ALONG_DEPTH ? (side + row) * static_cast<long long>(row_length) + k + column
                                   : (k + row) * static_cast<long long>(row_length) + side + column;
        const float* source = valid ? from.data + at : from.data;
        unsigned to = shared_address(tile + tile_index<ALONG_DEPTH>(tile_side, tile_k));
        if (from.wide) {
            copy_async(to, source, valid);
        } else {
            copy_async_word(to, source, valid);
        }
    }
}

#ifdef PRECISION_TF32

// Tensor cores: eight warps as 2 x 4, each 32 rows by 16 columns of the result in 2 x 2 fragments.
struct Accumulator {
    float sum[2][2][4];

    // The place in the tile of element `i` of fragment (f, g): lane l holds columns 2(l%4) and the next of rows l/4 and l/4 + 8.
    __device__ __forceinline__ static int row(int f, int i) {
        return threadIdx.x / 128 * 32 + f * 16 + i / 2 * 8 + threadIdx.x % 32 / 4;
    }
    __device__ __forceinline__ static int column(int g, int i) {
        return threadIdx.x / 32 % 4 * 16 + g * 8 + threadIdx.x % 4 * 2 + i % 2;
    }

    // 16 sides by 8 of the depth, as four registers. Register r of a fragment of `a` holds sides 8(r%2).. and depth 4(r/2)..;
    // of `b`, which are two fragments, it holds sides 8(r/2).. and depth 4(r%2)...
    template <bool ALONG_DEPTH, bool IS_A>
    __device__ __forceinline__ static void load(unsigned (&fragment)[4], const float* tile, int side, int k) {
        int lane = threadIdx.x % 32;
        if (ALONG_DEPTH) {
            int quarter = lane / 8;
            int by_side = IS_A ? quarter % 2 : quarter / 2, by_depth = IS_A ? quarter / 2 : quarter % 2;
            int at = tile_index<true>(side + 8 * by_side + lane % 8, k + 4 * by_depth);
            load_tiles(fragment, shared_address(tile + at));
        } else {
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                int by_side = IS_A ? r % 2 : r / 2, by_depth = IS_A ? r / 2 : r % 2;
                int at = tile_index<false>(side + 8 * by_side + lane / 4, k + 4 * by_depth + lane % 4);
                fragment[r] = __float_as_uint(tile[at]);
            }
        }
#pragma unroll
        for (int r = 0; r < 4; ++r) fragment[r] = round_tf32(__uint_as_float(fragment[r]));
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < 16; ++i) sum[i / 8][i / 4 % 2][i % 4] = 0.0f;
    }

    // sum += a b over one step.
    template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
    __device__ __forceinline__ void multiply(const float* a_tile, const float* b_tile) {
        int row = threadIdx.x / 128 * 32, column = threadIdx.x / 32 % 4 * 16;
#pragma unroll
        for (int k = 0; k < STEP; k += 8) {
            unsigned a[2][4], b[4];
            load<A_ALONG_DEPTH, true>(a[0], a_tile, row, k);
            load<A_ALONG_DEPTH, true>(a[1], a_tile, row + 16, k);
            load<B_ALONG_DEPTH, false>(b, b_tile, column, k);
#pragma unroll
            for (int f = 0; f < 2; ++f) {
                multiply_tf32(sum[f][0], a[f], b[0], b[1]);
                multiply_tf32(sum[f][1], a[f], b[2], b[3]);
            }
        }
    }

    // The sums as a [64][72] tile in shared memory, whose rows' shift by eight banks keeps eight rows of a fragment apart.
    template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH> __device__ __forceinline__ void store(float* result) const {
#pragma unroll
        for (int i = 0; i < 16; i += 2) {
            const float* pair = &sum[i / 8][i / 4 % 2][i % 4];
            *reinterpret_cast<float2*>(result + row(i / 8, i % 4) * (TILE + 8) + column(i / 4 % 2, 0)) =
                make_float2(pair[0], pair[1]);
        }
    }
};

#else

// FFMA: 16 x 16 threads, each 4 x 4 of the result. A thread's sides are four neighbours where a 16-byte load takes four sides of
// one k, and every sixteenth where it takes four k of one side.
struct Accumulator {
    float sum[4][4];

    template <bool ALONG_DEPTH> __device__ __forceinline__ static int side(int thread, int i) {
        return ALONG_DEPTH ? thread + 16 * i : 4 * thread + i;
    }

    // Four of the thread's sides by four of the depth.
    template <bool ALONG_DEPTH>
    __device__ __forceinline__ static void load(float (&x)[4][4], const float* tile, int thread, int k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int at = ALONG_DEPTH ? tile_index<true>(side<true>(thread, i), k) : tile_index<false>(4 * thread, k + i);
            float4 four = *reinterpret_cast<const float4*>(tile + at);
            (ALONG_DEPTH ? x[i][0] : x[0][i]) = four.x;
            (ALONG_DEPTH ? x[i][1] : x[1][i]) = four.y;
            (ALONG_DEPTH ? x[i][2] : x[2][i]) = four.z;
            (ALONG_DEPTH ? x[i][3] : x[3][i]) = four.w;
        }
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < 16; ++i) sum[i / 4][i % 4] = 0.0f;
    }

    // sum += a b over one step.
    template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
    __device__ __forceinline__ void multiply(const float* a_tile, const float* b_tile) {
#pragma unroll
        for (int k = 0; k < STEP; k += 4) {
            float a[4][4], b[4][4];
            load<A_ALONG_DEPTH>(a, a_tile, threadIdx.x / 16, k);
            load<B_ALONG_DEPTH>(b, b_tile, threadIdx.x % 16, k);
#pragma unroll
            for (int i = 0; i < 64; ++i) {
                int row = i / 4 % 4, column = i % 4, depth = i / 16;
                sum[row][column] = fmaf(a[row][depth], b[column][depth], sum[row][column]);
            }
        }
    }

    // The sums as a [64][72] tile in shared memory.
    template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH> __device__ __forceinline__ void store(float* result) const {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            int row = side<A_ALONG_DEPTH>(threadIdx.x / 16, i / 4), column = side<B_ALONG_DEPTH>(threadIdx.x % 16, i % 4);
            result[row * (TILE + 8) + column] = sum[i / 4][i % 4];
        }
    }
};

#endif
