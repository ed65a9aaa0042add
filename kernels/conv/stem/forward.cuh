// The stem's forward pass, with the statistics of what it stores.
//
// A block has 64 filters' weights in shared memory for good, and walks over tiles; a warp makes two rows of 16 output
// pixels, all 64 filters, in registers. Shared memory: the weights, 168 slots a filter in rows an odd number of 16
// bytes apart, which ldmatrix reads without bank conflicts; then two patches.
#pragma once

#include "conv/stem/patch.cuh"
#include "primitives/partials.cuh"
#include "primitives/reduce.cuh"

// y = conv(x, w) + bias, kept between bounds, and the statistics of what was stored. Block: 128 threads. Grid: blocks
// that share the N ceil(P/8) ceil(Q/16) tiles in order, times ceil(K/64). Shared: stem::FORWARD_SHARED bytes (dynamic).
// K a multiple of 8, pointers aligned to 16 bytes. Floor: x and y once, 2 N P Q K 147 FLOP.
struct ConvStemForward {
    element* y;
    float* stats;  // [2, K], or null
    const element* x;
    const float* w;
    const float* bias;  // [K], or null
    float* partials;    // with stats: [blocks][2][K], then a pixel count [ceil(K/64)][blocks]
    unsigned* tickets;  // with stats: one a 64 filters
    ConvGeometry shape;
    Bounds activation;  // of y; infinite for none
};

namespace stem {

constexpr int STEPS = (TAPS * SLOTS * int(sizeof(element)) + 31) / 32;  // of 32 bytes of the summed index: one product
constexpr int WEIGHTS_PITCH = STEPS * 32 + 16;                          // bytes; an odd number of 16s
constexpr int FORWARD_WARPS = TILE_P / 2;
constexpr int FORWARD_SHARED = FILTERS * WEIGHTS_PITCH + 2 * Patch::BYTES;

// A thread holds two neighbouring columns of each 16x8 product. Column 2t + e of product j is filter 4 LANE (j /
// (LANE/2)) + LANE t + 2 (j % (LANE/2)) + e, so that LANE neighbouring filters are in one thread: one store of 16
// bytes, and four threads' stores side by side.
__device__ __forceinline__ int column_of(int filter) {
    int j = filter / (4 * LANE) * (LANE / 2) + filter % LANE / 2;
    return j * 8 + filter / LANE % 4 * 2 + filter % 2;
}

// Output column, within the tile, of row `half` * 8 + group of a 16-row product. In TF32 neighbours take turns: eight
// lanes then read the patch 12 apart, which with four slots each are 32 banks.
__device__ __forceinline__ constexpr int pixel_of(int group, int half) {
    return sizeof(element) == 2 ? group + 8 * half : 2 * group + half;
}

// Whether even and odd rows of taps begin one slot early: bfloat16, and an odd place in memory. All tiles of an image
// agree.
struct Early {
    int of[2];

    __device__ __forceinline__ Early(const ConvGeometry& g, int n) {
        int row = n * g.h + 1;
        of[0] = sizeof(element) == 2 ? (row * g.w + 1) & 1 : 0;
        of[1] = sizeof(element) == 2 ? (row * g.w + g.w + 1) & 1 : 0;
    }
};

// FILTERS rows of weights to shared memory, slots apart as the patches of an image have them.
__device__ __forceinline__ void load_weights(char* to, const float* w, int filters, const Early& early) {
    constexpr int THREADS = 32 * FORWARD_WARPS;
#pragma unroll 1
    for (int i = threadIdx.x; i < FILTERS * WEIGHTS_PITCH / 16; i += THREADS) reinterpret_cast<Quad*>(to)[i] = Quad{};
    __syncthreads();
    // Weight (filter, r, j), and from one to THREADS further without a division.
    static_assert(THREADS < LENGTH, "one filter further at the most");
    int filter = 0, r = threadIdx.x / ROW, j = threadIdx.x % ROW;
#pragma unroll 1
    for (int i = threadIdx.x; i < min(FILTERS, filters) * LENGTH; i += THREADS) {
        char* row = to + column_of(filter) * WEIGHTS_PITCH;
        int slot = r * SLOTS + j + (r % 2 == 0 ? early.of[0] : early.of[1]);
#ifdef PRECISION_BF16
        reinterpret_cast<element*>(row)[slot] = narrow<element>(w[i]);
#else
        reinterpret_cast<unsigned*>(row)[slot] = round_tf32(w[i]);
#endif
        j += THREADS % ROW;
        r += THREADS / ROW + (j >= ROW);
        j -= j >= ROW ? ROW : 0;
        filter += r >= TAPS;
        r -= r >= TAPS ? TAPS : 0;
    }
}

// The sums of this warp's two rows of 16 output pixels, over all taps, for FILTERS filters.
//
// A product takes two half steps of 16 bytes of the summed index; PARTS of them are a row of taps.
__device__ __forceinline__ void multiply_patch(float (&sum)[2][8][4], const element* patch, const Patch& source,
                                               const Early& early, unsigned weights) {
    constexpr int PARTS = SLOTS / LANE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    // This lane's words of each row of taps, but for the row's own place.
    const element* words = patch + (STRIDE * CHANNELS * pixel_of(lane / 4, 0) + t * (LANE / 4));
    constexpr int SECOND = STRIDE * CHANNELS * (pixel_of(0, 1) - pixel_of(0, 0));
    // Which bits of a word are the row's: of its first half step and of its last.
    unsigned last[2];
#ifdef PRECISION_BF16
    unsigned first[2];
#endif
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
#ifdef PRECISION_BF16
        first[odd] = t == 0 && early.of[odd] ? 0xffff0000u : ~0u;
        last[odd] = t == 3 ? 0u : (t == 2 && !early.of[odd] ? 0xffffu : ~0u);
#else
        last[odd] = t == 0 ? ~0u : 0u;
#endif
    }
    // Of the four tiles of 8 columns by 16 bytes that one load brings: columns 0-7, both half steps; columns 8-15,
    // both.
    unsigned at = weights + (lane / 16 * 8 + lane % 8) * WEIGHTS_PITCH + lane / 8 % 2 * 16;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) sum[i][j][e] = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        unsigned a[2][4] = {};
#pragma unroll
        for (int h = 2 * step; h < min(2 * step + 2, TAPS * PARTS); ++h) {
            int r = h / PARTS, part = h % PARTS;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                int row = (warp * 2 + i) * STRIDE + r;
                const element* word = words + (row * Patch::PITCH + source.origin(row) - early.of[r % 2] + part * LANE);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    unsigned& x = a[i][h % 2 * 2 + half];
#ifdef PRECISION_BF16
                    x = *reinterpret_cast<const unsigned*>(word + half * SECOND);
                    if (part == 0) x &= first[r % 2];
#else
                    x = round_tf32(word[half * SECOND]);
#endif
                    if (part == PARTS - 1) x &= last[r % 2];
                }
            }
        }
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            unsigned b[4];
            load_tiles(b, at + j * 8 * WEIGHTS_PITCH + step * 32);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#ifdef PRECISION_BF16
                multiply_bf16(sum[i][j], a[i], b[0], b[1]);
                multiply_bf16(sum[i][j + 1], a[i], b[2], b[3]);
#else
                multiply_tf32(sum[i][j], a[i], b[0], b[1]);
                multiply_tf32(sum[i][j + 1], a[i], b[2], b[3]);
#endif
            }
        }
    }
}

// Stores a tile's results; `running`, of this thread's 16 filters, takes them in as stored.
__device__ __forceinline__ void store_tile(const ConvStemForward& a, const float (&sum)[2][8][4], const TilePlace& at,
                                           int first, Running<16>& running) {
    const ConvGeometry& g = a.shape;
    int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, lane = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int p = at.p + warp * 2 + i, q = at.q + pixel_of(group, half);
            if (p >= g.p || q >= g.q) continue;
            element* y = a.y + ((at.n * g.p + p) * g.q + q) * g.k;
            float share = running.begin();
#pragma unroll
            for (int j = 0; j < 8; j += LANE / 2) {
                int k = first + j * 8 + lane * LANE;
                if (k >= g.k) continue;
                float x[LANE];
#pragma unroll
                for (int e = 0; e < LANE; ++e) {
                    x[e] = sum[i][j + e / 2][half * 2 + e % 2];
                    if (a.bias != nullptr) x[e] += a.bias[k + e];
                    x[e] = bounded(x[e], a.activation);
                }
                Quad rounded = pack(x);
                *reinterpret_cast<Quad*>(y + k) = rounded;
                unpack(rounded, x);
#pragma unroll
                for (int e = 0; e < LANE; ++e) running.add(2 * j + e, x[e], share);
            }
        }
}

// From every thread's moments to `stats`: lanes, warps, then blocks, each in a fixed order.
__device__ __forceinline__ void reduce_statistics(const ConvStemForward& a, Running<16>& running, int first,
                                                  float* shared) {
    int warp = threadIdx.x / 32, filters = a.shape.k, blocks = gridDim.x;
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
        float count = __shfl_xor_sync(0xffffffffu, running.count, step);
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            float mean = __shfl_xor_sync(0xffffffffu, running.mean[i], step);
            float m2 = __shfl_xor_sync(0xffffffffu, running.m2[i], step);
            Moments all = merge(Moments{running.count, running.mean[i], running.m2[i]}, Moments{count, mean, m2});
            running.mean[i] = all.mean;
            running.m2[i] = all.m2;
        }
        running.count += count;
    }
    // [warps][2][FILTERS], and each warp's count.
    float* counts = shared + FORWARD_WARPS * 2 * FILTERS;
    if (threadIdx.x % 32 < 4) {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            int k = i / LANE * 4 * LANE + threadIdx.x % 4 * LANE + i % LANE;
            write_partial(shared + 2 * warp * FILTERS + k, FILTERS,
                          Moments{running.count, running.mean[i], running.m2[i]});
        }
        counts[warp] = running.count;
    }
    __syncthreads();
    int k = first + threadIdx.x;
    bool mine = threadIdx.x < FILTERS && k < filters;
    // Every group of filters has the same counts, in a place of its own.
    float* block_counts = a.partials + 2 * blocks * filters + blockIdx.y * blocks;
    if (mine) {
        Moments all = merge_rows<Moments>(shared + threadIdx.x, FILTERS, 0, FORWARD_WARPS,
                                          [&](int other) { return counts[other]; });
        write_partial(a.partials + 2 * blockIdx.x * filters + k, filters, all);
        if (threadIdx.x == 0) block_counts[blockIdx.x] = all.count;
    }
    if (!last_block(a.tickets + blockIdx.y, blocks) || !mine) return;
    Moments all = merge_rows<Moments>(a.partials + k, filters, 0, blocks,
                                      [&](int block) { return block_counts[block]; });
    write_result(a.stats + k, filters, all);
}

__device__ __forceinline__ void forward(const ConvStemForward& a) {
    extern __shared__ Quad stem_shared[];
    constexpr int THREADS = 32 * FORWARD_WARPS;
    const ConvGeometry& g = a.shape;
    char* weights = reinterpret_cast<char*>(stem_shared);
    char* now = weights + FILTERS * WEIGHTS_PITCH;
    char* next = now + Patch::BYTES;
    int first = blockIdx.y * FILTERS;
    Range range(g);
    Running<16> running;
    int layout = -1;
    if (range.begin < range.end) Patch(g, TilePlace(g, range.begin)).copy<THREADS>(a.x, shared_address(now));
    commit_copies();
    for (int tile = range.begin; tile < range.end; ++tile) {
        if (tile + 1 < range.end) Patch(g, TilePlace(g, tile + 1)).copy<THREADS>(a.x, shared_address(next));
        commit_copies();
        TilePlace at(g, tile);
        Patch source(g, at);
        Early early(g, at.n);
        // Images of odd height and width take turns in where their rows begin.
        if (layout != early.of[0]) load_weights(weights, a.w + first * LENGTH, g.k - first, early);
        layout = early.of[0];
        element* patch = reinterpret_cast<element*>(now);
        await_copies<1>();
        __syncthreads();
        if (source.left < 0) {
            source.clear<THREADS>(patch);
            __syncthreads();
        }
        float sum[2][8][4];
        multiply_patch(sum, patch, source, early, shared_address(weights));
        store_tile(a, sum, at, first, running);
        __syncthreads();
        char* other = now;
        now = next;
        next = other;
    }
    if (a.stats != nullptr) reduce_statistics(a, running, first, reinterpret_cast<float*>(stem_shared));
}

}  // namespace stem
