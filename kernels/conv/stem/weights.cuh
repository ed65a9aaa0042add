// The stem's weight gradient.
//
// A product is 16 filters by 8 numbers of a row of taps, summed over pixels of a row of the tile. Each of seven warps
// has a row of taps: 64 filters by three products of 8, 21 numbers of which are kept, in registers to the end. Shared
// memory: two stages of a patch and of the output gradients of its pixels.
#pragma once

#include "conv/stem/patch.cuh"

// partials[block] = sum over the block's pixels of dy (x) x, to be added to dw. Block: 224 threads. Grid: blocks that
// share the N ceil(P/8) ceil(Q/16) tiles in order, times ceil(K/64). Shared: stem::BACKWARD_SHARED bytes. K a multiple
// of 8, pointers aligned to 16 bytes. Floor: x and dy once, 2 N P Q K 147 FLOP.
struct ConvStemBackwardWeights {
    float* partials;  // [blocks][K][7][7][3]
    const element* dy;
    const element* x;
    ConvGeometry shape;
};

namespace stem {

constexpr int BACKWARD_WARPS = TAPS;
constexpr int DY_PITCH = FILTERS + 8;  // 8 pixels' rows of 16 bytes lie in different banks, as do 4 pixels' of 8 floats
constexpr int DY_BYTES = PIXELS * DY_PITCH * int(sizeof(element));
constexpr int STAGE_BYTES = Patch::BYTES + DY_BYTES;
constexpr int BACKWARD_SHARED = 2 * STAGE_BYTES;
static_assert(FILTERS * LENGTH * 4 <= BACKWARD_SHARED, "a block's result fits over the stages");

// Starts the copies of a tile's output gradients, zeros past the image's edge and the last filter.
__device__ __forceinline__ void copy_gradients(const ConvStemBackwardWeights& a, const TilePlace& at, int first,
                                               unsigned to) {
    const ConvGeometry& g = a.shape;
    constexpr int CHUNKS = FILTERS / LANE;
#pragma unroll 1
    for (int i = threadIdx.x; i < PIXELS * CHUNKS; i += 32 * BACKWARD_WARPS) {
        int pixel = i / CHUNKS, chunk = i % CHUNKS, k = first + chunk * LANE;
        int p = at.p + pixel / TILE_Q, q = at.q + pixel % TILE_Q;
        bool inside = p < g.p && q < g.q && k < g.k;
        const element* from = a.dy + (inside ? ((at.n * g.p + p) * g.q + q) * g.k + k : 0);
        copy_async(to + (pixel * DY_PITCH + chunk * LANE) * int(sizeof(element)), from, inside);
    }
}

// Adds the products of row `p` of the tile.
__device__ __forceinline__ void add_row(float (&sum)[4][3][4], const element* dy, const element* patch,
                                        const Patch& source, int p) {
    int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4, row = p * STRIDE + threadIdx.x / 32;
    const element* x = patch + (row * Patch::PITCH + source.origin(row) + group);
    constexpr int PIXEL = STRIDE * CHANNELS;
#ifdef PRECISION_BF16
    unsigned b[3][2];
#pragma unroll
    for (int j = 0; j < 3; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const element* pair = x + j * 8 + (2 * t + 8 * half) * PIXEL;
            b[j][half] = pair[0].bits | unsigned(pair[PIXEL].bits) << 16;
        }
    unsigned at = shared_address(dy + (p * TILE_Q + lane / 16 * 8 + lane % 8) * DY_PITCH + lane / 8 % 2 * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        unsigned a[4];
        load_tiles_transposed(a, at + i * 32);
#pragma unroll
        for (int j = 0; j < 3; ++j) multiply_bf16(sum[i][j], a, b[j][0], b[j][1]);
    }
#else
#pragma unroll
    for (int q = 0; q < TILE_Q; q += 8) {
        unsigned b[3][2];
#pragma unroll
        for (int j = 0; j < 3; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) b[j][half] = round_tf32(x[j * 8 + (q + t + 4 * half) * PIXEL]);
        const float* at = dy + (p * TILE_Q + q + t) * DY_PITCH + group;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            unsigned a[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) a[e] = round_tf32(at[e / 2 * 4 * DY_PITCH + i * 16 + e % 2 * 8]);
#pragma unroll
            for (int j = 0; j < 3; ++j) multiply_tf32(sum[i][j], a, b[j][0], b[j][1]);
        }
    }
#endif
}

__device__ __forceinline__ void backward_weights(const ConvStemBackwardWeights& a) {
    extern __shared__ Quad stem_shared[];
    const ConvGeometry& g = a.shape;
    char* stages = reinterpret_cast<char*>(stem_shared);
    int first = blockIdx.y * FILTERS;
    Range range(g);
    auto start = [&](int tile, char* stage) {
        TilePlace at(g, tile);
        Patch(g, at).copy<32 * BACKWARD_WARPS>(a.x, shared_address(stage));
        copy_gradients(a, at, first, shared_address(stage + Patch::BYTES));
    };
    float sum[4][3][4] = {};
    if (range.begin < range.end) start(range.begin, stages);
    commit_copies();
    for (int tile = range.begin; tile < range.end; ++tile) {
        char* now = stages + (tile - range.begin) % 2 * STAGE_BYTES;
        if (tile + 1 < range.end) start(tile + 1, stages + (tile - range.begin + 1) % 2 * STAGE_BYTES);
        commit_copies();
        await_copies<1>();
        __syncthreads();
        Patch source(g, TilePlace(g, tile));
        element* patch = reinterpret_cast<element*>(now);
        if (source.left < 0) {
            source.clear<32 * BACKWARD_WARPS>(patch);
            __syncthreads();
        }
        const element* dy = reinterpret_cast<const element*>(now + Patch::BYTES);
#pragma unroll 2
        for (int p = 0; p < TILE_P; ++p) add_row(sum, dy, patch, source, p);
        __syncthreads();
    }

    // Through shared memory, as dw lies, so that the stores are whole lines.
    float* result = reinterpret_cast<float*>(stem_shared);
    int r = threadIdx.x / 32, group = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 3; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int filter = i * 16 + e / 2 * 8 + group, number = j * 8 + t * 2 + e % 2;
                if (number < ROW) result[filter * LENGTH + r * ROW + number] = sum[i][j][e];
            }
    __syncthreads();
    Quad* to = reinterpret_cast<Quad*>(a.partials + (blockIdx.x * g.k + first) * LENGTH);
    int quads = min(FILTERS, g.k - first) * LENGTH / 4;
    for (int i = threadIdx.x; i < quads; i += 32 * BACKWARD_WARPS) to[i] = stem_shared[i];
}

}  // namespace stem
