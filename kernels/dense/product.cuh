// The product of one 64x64 tile of a dense layer: operands from device to shared memory, and their multiplication
// there.
//
// An operand is seen as sides x depth: its 64 sides are rows of the tile's result for `a` and columns for `b`; the
// depth is what the product sums over. In memory either the depth is contiguous (x and w in the forward pass) or the
// sides are (w in the data gradient; dz and x in the weights'). A step of the main loop takes 32 of the depth:
//
//     ALONG_DEPTH    [64 sides][32 + 4]     a side's row is 144 bytes: eight of them begin in eight different groups of
//                                           four banks, so that ldmatrix and 16-byte loads of one k from eight sides do
//                                           not collide
//     else           [32 depth][64 + 8]     a row is 288 bytes: k..k+3 by 8 sides, a tensor core's fragment, are 32 banks
//
// Both take 2304 floats, copied as they lie, so asynchronously and without a transposition.
#pragma once

#include "primitives/tensor_core.cuh"

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
__device__ __forceinline__ void copy_tile(unsigned tile, const Operand& from, int side, int k, int end) {
    constexpr int ROW = ALONG_DEPTH ? STEP : TILE;  // contiguous floats
    constexpr int PITCH = ALONG_DEPTH ? STEP + 4 : TILE + 8;
    int length = ALONG_DEPTH ? from.depth : from.sides;
    int row0 = ALONG_DEPTH ? side : k, column0 = ALONG_DEPTH ? k : side;
    int rows = ALONG_DEPTH ? from.sides : end, columns = ALONG_DEPTH ? end : from.sides;
    int origin = row0 * length + column0;
    if (from.wide) {
        int row = threadIdx.x / (ROW / 4), column = threadIdx.x % (ROW / 4) * 4;
#pragma unroll
        for (int i = 0; i < TILE * STEP / 1024; ++i, row += 1024 / ROW) {
            bool valid = row0 + row < rows && column0 + column < columns;
            const float* four = from.data + (valid ? origin + row * length + column : 0);
            copy_async(tile + (row * PITCH + column) * 4, four, valid);
        }
    } else {
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE * STEP; i += 256) {
            int row = i / ROW, column = i % ROW;
            bool valid = row0 + row < rows && column0 + column < columns;
            const float* word = from.data + (valid ? origin + row * length + column : 0);
            copy_async_word(tile + (row * PITCH + column) * 4, word, valid);
        }
    }
}

#ifdef PRECISION_TF32

// Tensor cores: eight warps as 2 x 4, each 32 rows by 16 columns of the result in 2 x 2 fragments.
struct Accumulator {
    float sum[2][2][4];

    // The place in the tile of element `i` of fragment (f, g): lane l holds columns 2(l%4) and the next of rows l/4 and
    // l/4 + 8.
    __device__ __forceinline__ static int row(int f, int i) {
        return threadIdx.x / 128 * 32 + f * 16 + i / 2 * 8 + threadIdx.x % 32 / 4;
    }
    __device__ __forceinline__ static int column(int g, int i) {
        return threadIdx.x / 32 % 4 * 16 + g * 8 + threadIdx.x % 4 * 2 + i % 2;
    }

    // 16 sides by 8 of the depth, as four registers. Register r of a fragment of `a` holds sides 8(r%2).. and depth
    // 4(r/2)..; of `b`, which are two fragments, it holds sides 8(r/2).. and depth 4(r%2)...
    template <bool ALONG_DEPTH, bool IS_A>
    __device__ __forceinline__ static void load(unsigned (&fragment)[4], const float* tile, int side, int k) {
        int lane = threadIdx.x % 32;
        if (ALONG_DEPTH) {
            int quarter = lane / 8;
            int by_side = IS_A ? quarter % 2 : quarter / 2, by_depth = IS_A ? quarter / 2 : quarter % 2;
            int at = tile_index<true>(8 * by_side + lane % 8, 4 * by_depth) + tile_index<true>(side, k);
            load_tiles(fragment, shared_address(tile) + at * 4);
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

    // Floats between two rows of the result in shared memory: four rows of a fragment's pairs are 32 banks.
    static constexpr int PITCH = TILE + 8;
    template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH> __device__ __forceinline__ void store(float* result) const {
#pragma unroll
        for (int i = 0; i < 16; i += 2) {
            const float* pair = &sum[i / 8][i / 4 % 2][i % 4];
            *reinterpret_cast<float2*>(result + row(i / 8, i % 4) * PITCH + column(i / 4 % 2, 0)) =
                make_float2(pair[0], pair[1]);
        }
    }
};

#else

// FFMA: 16 x 16 threads, each 4 x 4 of the result. A thread's sides are four neighbours where a 16-byte load takes four
// sides of one k, and every sixteenth where it takes four k of one side.
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

    // Floats between two rows of the result in shared memory: two rows of sixteen columns are 32 banks.
    static constexpr int PITCH = TILE + 16;
    template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH> __device__ __forceinline__ void store(float* result) const {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            int row = side<A_ALONG_DEPTH>(threadIdx.x / 16, i / 4);
            int column = side<B_ALONG_DEPTH>(threadIdx.x % 16, i % 4);
            result[row * PITCH + column] = sum[i / 4][i % 4];
        }
    }
};

#endif
