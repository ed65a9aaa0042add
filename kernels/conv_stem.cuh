// The stem, a convolution of 7x7 taps over 3 channels with stride 2 and padding 3, on tensor cores.
//
// Channels this few leave the implicit GEMM of the other layers nothing to load in 16 bytes. But under a row of taps the 21
// numbers (s, c) of a pixel lie side by side in memory, 6 further for the next pixel. So a block copies the patch of the image
// that its pixels see as it lies there, and reads the product's fragments from that: row r of the filter takes 24 of the
// summed index, three steps of 8 (21 numbers and 3 whose weights are zero), and no im2col is ever written.
//
// Tiles of 8 x 16 output pixels; a patch of 21 rows of 37 pixels. Blocks walk over tiles, in order, the next patch on its way
// while this one is multiplied.
//
// Alignment. Rows of an image of odd size begin anywhere, and copies of 16 bytes want both sides aligned. So a patch row
// keeps its source's place within 16 bytes, and the reader adds it (Patch::origin). In bfloat16 a fragment is pairs of numbers,
// which must begin at even places: where a row begins at an odd one the 24 slots begin one number earlier, and the
// weights move up by one slot to match (`early`). The three spare slots hold neighbours that belong to other pixels; they
// are masked, so that a NaN there stays where it belongs.
#pragma once

#include "conv_geometry.cuh"
#include "reduce.cuh"
#include "tensor_core.cuh"

namespace stem {

// Starts a copy of `bytes` of 16 bytes from global to shared memory, and of zeros for the rest.
__device__ __forceinline__ void copy_async_part(unsigned to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

constexpr int TAPS = 7, CHANNELS = 3, STRIDE = 2, PAD = 3;
constexpr int ROW = TAPS * CHANNELS;  // numbers under a row of taps
constexpr int LENGTH = TAPS * ROW;    // weights of a filter
constexpr int SLOTS = 24;             // of the summed index, a row of taps
constexpr int TILE_P = 8, TILE_Q = 16, PIXELS = TILE_P * TILE_Q;
constexpr int FILTERS = 64;  // a block

// Tile `index` of images in reading order.
struct Place {
    int n, p, q;

    __device__ __forceinline__ Place(const ConvGeometry& g, int index) {
        int down = (g.p + TILE_P - 1) / TILE_P, across = (g.q + TILE_Q - 1) / TILE_Q;
        q = index % across * TILE_Q;
        p = index / across % down * TILE_P;
        n = index / across / down;
    }
};

// What a tile of output pixels sees of the image, as the copies of 16 bytes leave it in shared memory.
struct Patch {
    static constexpr int ROWS = STRIDE * (TILE_P - 1) + TAPS;
    // Numbers that are read from a row's origin on, and room for them wherever in 16 bytes the row begins.
    static constexpr int READ = STRIDE * CHANNELS * (TILE_Q - 1) + SLOTS;
    static constexpr int CHUNKS = (READ + 2 * LANE - 2) / LANE;
    static constexpr int PITCH = CHUNKS * LANE;
    static constexpr int BYTES = ROWS * CHUNKS * 16;

    int start;  // where the row 0 begins in memory, were it inside the image: may be negative
    int pitch;  // from row to row, there
    int top, left, height, width;

    __device__ __forceinline__ Patch(const ConvGeometry& g, const Place& at)
        : pitch(g.w * CHANNELS), top(at.p * STRIDE - PAD), left(at.q * STRIDE - PAD), height(g.h), width(g.w) {
        start = ((at.n * g.h + top) * g.w + left) * CHANNELS;
    }

    // Where row `row` begins within its first 16 bytes.
    __device__ __forceinline__ int origin(int row) const { return (start + row * pitch) & (LANE - 1); }

    // Starts the copies. What lies below or to the right of the image becomes zero, and to the left, but for up to LANE - 1
    // numbers: those are left to clear().
    template <int THREADS> __device__ __forceinline__ void copy(const element* x, unsigned to) const {
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            int row = i / CHUNKS, chunk = i % CHUNKS;
            int begin = start + row * pitch, from = begin - (begin & (LANE - 1)) + chunk * LANE;
            // Numbers of this chunk before the image's row ends; none if it ends before the row begins.
            int rest = begin + (width - left) * CHANNELS - from;
            bool inside = unsigned(top + row) < unsigned(height) && from + LANE > begin - left * CHANNELS;
            int numbers = inside ? max(0, min(LANE, rest)) : 0;
            copy_async_part(to + i * 16, x + (numbers > 0 ? from : 0), numbers * int(sizeof(element)));
        }
    }

    // Zeros to the left of the image, once the copies have landed.
    template <int THREADS> __device__ __forceinline__ void clear(element* patch) const {
        constexpr int PADDING = PAD * CHANNELS;
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < ROWS * PADDING; i += THREADS) {
            int row = i / PADDING;
            patch[row * PITCH + origin(row) + i % PADDING] = element{};
        }
    }
};

// --- forward ---------------------------------------------------------------------------------------------------------

constexpr int STEPS = (TAPS * SLOTS * int(sizeof(element)) + 31) / 32;  // of 32 bytes of the summed index: one product
constexpr int WEIGHTS_PITCH = STEPS * 32 + 16;                          // bytes; an odd number of 16s
constexpr int FORWARD_WARPS = TILE_P / 2;

// A thread holds two neighbouring columns of each 16x8 product. Column 2t + e of product j is filter 4 LANE (j / (LANE/2)) +
// LANE t + 2 (j % (LANE/2)) + e, so that LANE neighbouring filters are in one thread: one store of 16 bytes, and four
// threads' stores side by side.
__device__ __forceinline__ int column_of(int filter) {
    int j = filter / (4 * LANE) * (LANE / 2) + filter % LANE / 2;
    return j * 8 + filter / LANE % 4 * 2 + filter % 2;
}

// Output column, within the tile, of row `half` * 8 + group of a 16-row product. In TF32 neighbours take turns: eight lanes then
// read the patch 12 apart, which with four slots each are 32 banks.
__device__ __forceinline__ constexpr int pixel_of(int group, int half) {
    return sizeof(element) == 2 ? group + 8 * half : 2 * group + half;
}

// Whether even and odd rows of taps begin one slot early: bfloat16, and an odd place in memory. All tiles of an image agree.
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

}  // namespace stem

// y = conv(x, w) + bias, and the statistics of what was stored. Block: 128 threads. Grid: blocks that share the
// N ceil(P/8) ceil(Q/16) tiles in order, times ceil(K/64). Shared: stem::FORWARD_SHARED bytes (dynamic). K a multiple of 8, pointers
// aligned to 16 bytes. Floor: x and y once, 2 N P Q K 147 FLOP.
struct ConvStemForward {
    element* y;
    float* stats;  // [2, K], or null
    const element* x;
    const float* w;
    const float* bias;  // [K], or null
    float* partials;    // with stats: [blocks][2][K], then a pixel count [ceil(K/64)][blocks]
    unsigned* tickets;  // with stats: one a 64 filters
    ConvGeometry g;
};

namespace stem {

constexpr int FORWARD_SHARED = FILTERS * WEIGHTS_PITCH + 2 * Patch::BYTES;

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
    // Of the four tiles of 8 columns by 16 bytes that one load brings: columns 0-7, both half steps; columns 8-15, both.
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

// Moments of this thread's 16 filters, over the pixels that it has stored.
struct Running {
    float count = 0.0f, mean[16] = {}, m2[16] = {};

    // One more pixel (Welford): begin() it, then add each filter's value.
    __device__ __forceinline__ float begin() { return 1.0f / (count += 1.0f); }
    __device__ __forceinline__ void add(int i, float x, float share) {
        float delta = x - mean[i];
        mean[i] = fmaf(delta, share, mean[i]);
        m2[i] = fmaf(delta, x - mean[i], m2[i]);
    }
};

// Stores a tile's results; `running` takes them in as stored.
__device__ __forceinline__ void store_tile(const ConvStemForward& a, const float (&sum)[2][8][4], const Place& at, int first,
                                           Running& running) {
    const ConvGeometry& g = a.g;
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
__device__ __forceinline__ void reduce_statistics(const ConvStemForward& a, Running& running, int first, float* shared) {
    constexpr int WARP = 2 * FILTERS + 1;  // floats a warp leaves: means, m2s, its count
    int warp = threadIdx.x / 32, filters = a.g.k, blocks = gridDim.x;
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
    float* own = shared + warp * WARP;
    if (threadIdx.x % 32 < 4) {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            int k = i / LANE * 4 * LANE + threadIdx.x % 4 * LANE + i % LANE;
            own[k] = running.mean[i];
            own[FILTERS + k] = running.m2[i];
        }
        own[2 * FILTERS] = running.count;
    }
    __syncthreads();
    int k = first + threadIdx.x;
    bool mine = threadIdx.x < FILTERS && k < filters;
    if (mine) {
        Moments all = {0.0f, 0.0f, 0.0f};
        for (int other = 0; other < FORWARD_WARPS; ++other) {
            const float* part = shared + other * WARP;
            all = merge(all, Moments{part[2 * FILTERS], part[threadIdx.x], part[FILTERS + threadIdx.x]});
        }
        a.partials[2 * blockIdx.x * filters + k] = all.mean;
        a.partials[(2 * blockIdx.x + 1) * filters + k] = all.m2;
        // Every group of filters writes the same count, into a place of its own.
        if (threadIdx.x == 0) a.partials[2 * blocks * filters + blockIdx.y * blocks + blockIdx.x] = all.count;
    }
    if (!last_block(a.tickets + blockIdx.y, blocks) || !mine) return;
    Moments all = {0.0f, 0.0f, 0.0f};
    const float* counts = a.partials + 2 * blocks * filters + blockIdx.y * blocks;
#pragma unroll 4
    for (int block = 0; block < blocks; ++block) {
        const float* part = a.partials + 2 * block * filters + k;
        all = merge(all, Moments{counts[block], part[0], part[filters]});
    }
    a.stats[k] = all.mean;
    a.stats[filters + k] = all.m2 / all.count;
}

// Which of `tiles` tiles this block takes: [begin, end).
struct Range {
    int begin, end;

    __device__ __forceinline__ Range(const ConvGeometry& g) {
        int tiles = g.n * ((g.p + TILE_P - 1) / TILE_P) * ((g.q + TILE_Q - 1) / TILE_Q);
        int share = (tiles + gridDim.x - 1) / gridDim.x;
        begin = min(tiles, int(blockIdx.x) * share);
        end = min(tiles, begin + share);
    }
};

__device__ __forceinline__ void forward(const ConvStemForward& a) {
    extern __shared__ Quad stem_shared[];
    constexpr int THREADS = 32 * FORWARD_WARPS;
    const ConvGeometry& g = a.g;
    char* weights = reinterpret_cast<char*>(stem_shared);
    char* now = weights + FILTERS * WEIGHTS_PITCH;
    char* next = now + Patch::BYTES;
    int first = blockIdx.y * FILTERS;
    Range range(g);
    Running running;
    int layout = -1;
    if (range.begin < range.end) Patch(g, Place(g, range.begin)).copy<THREADS>(a.x, shared_address(now));
    commit_copies();
    for (int tile = range.begin; tile < range.end; ++tile) {
        if (tile + 1 < range.end) Patch(g, Place(g, tile + 1)).copy<THREADS>(a.x, shared_address(next));
        commit_copies();
        Place at(g, tile);
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

// partials[block] = sum over the block's pixels of dy (x) x, to be added to dw. Block: 224 threads. Grid: blocks that share the
// N ceil(P/8) ceil(Q/16) tiles in order, times ceil(K/64). Shared: stem::BACKWARD_SHARED bytes. K a multiple of 8, pointers
// aligned to 16 bytes. Floor: x and dy once, 2 N P Q K 147 FLOP.
struct ConvStemBackwardWeights {
    float* partials;  // [blocks][K][7][7][3]
    const element* dy;
    const element* x;
    ConvGeometry g;
};

namespace stem {

// --- weight gradient -------------------------------------------------------------------------------------------------
// A product is 16 filters by 8 numbers of a row of taps, summed over pixels of a row of the tile. Each of seven warps has a
// row of taps: 64 filters by three products of 8, 21 numbers of which are kept, in registers to the end.

constexpr int BACKWARD_WARPS = TAPS;
constexpr int DY_PITCH = FILTERS + 8;  // 8 pixels' rows of 16 bytes lie in different banks, as do 4 pixels' of 8 floats
constexpr int DY_BYTES = PIXELS * DY_PITCH * int(sizeof(element));
constexpr int STAGE_BYTES = Patch::BYTES + DY_BYTES;
constexpr int BACKWARD_SHARED = 2 * STAGE_BYTES;
static_assert(FILTERS * LENGTH * 4 <= BACKWARD_SHARED, "a block's result fits over the stages");

// Starts the copies of a tile's output gradients, zeros past the image's edge and the last filter.
__device__ __forceinline__ void copy_gradients(const ConvStemBackwardWeights& a, const Place& at, int first, unsigned to) {
    const ConvGeometry& g = a.g;
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
__device__ __forceinline__ void add_row(float (&sum)[4][3][4], const element* dy, const element* patch, const Patch& source,
                                        int p) {
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
    const ConvGeometry& g = a.g;
    char* stages = reinterpret_cast<char*>(stem_shared);
    int first = blockIdx.y * FILTERS;
    Range range(g);
    auto start = [&](int tile, char* stage) {
        Place at(g, tile);
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
        Patch source(g, Place(g, tile));
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
    for (int i = threadIdx.x; i < min(FILTERS, g.k - first) * LENGTH / 4; i += 32 * BACKWARD_WARPS) to[i] = stem_shared[i];
}

}  // namespace stem
