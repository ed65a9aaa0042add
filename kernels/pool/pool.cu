// Max pooling of windows, and its gradient; global.cuh has the poolings of whole images.
//
// A maximum goes to the first of equals in reading order, and to the first NaN before any number. rows.cuh says who
// computes what: a row is a pixel of the output where a thread looks through its window, and pixels of the input where
// it asks their windows. y owes nothing; x may owe the scale and shift of `norm` and the `bounds` behind them, which
// the zeros outside the image come after. Where there are no zeros outside, every window has a pixel inside.
//
// Launch contract: block 256, grid (slices of channels, blocks that share the rows), as in batch_norm.cu; no dynamic
// shared memory, no tickets; x fewer than 2^31 elements; `shape.wide` as there.

#include "conv/geometry.cuh"
#include "pool/global.cuh"
#include "primitives/rows.cuh"

struct PoolGeometry {
    int h, w;
    int window, stride, pad;
    int zeros; // what lies outside the image takes part in the maximum, as zero
    int p, q;
};

struct MaxPoolWindows {
    element* y;             // written by max_pool_forward
    unsigned char* winners; // [N, P, Q, C], written by max_pool_winners
    const element* x;
    const float* norm; // or null: nothing is owed
    Bounds bounds;     // infinite then
    WalkShape shape;   // N*P*Q rows
    PoolGeometry geometry;
    Divisor by_p, by_q;
};

struct MaxPoolBackward {
    element* dx;
    const element* dy;
    const unsigned char* winners;
    WalkShape shape; // n images of by_height * by_width rows
    PoolGeometry geometry;
    Divisor by_height, by_width, by_stride;
    int reach; // ceil(window / stride): as many windows at most meet in a pixel, either way
};

__device__ __forceinline__ float max_nan(float x, float y) {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

__device__ __forceinline__ float min_nan(float x, float y) {
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

// The tap that won each of a group's channels, a byte each, in as few words.
template <int WIDTH> struct Winners {
    static constexpr int WORDS = (WIDTH + 3) / 4;
    unsigned word[WORDS];

    __device__ __forceinline__ void store(unsigned char* to) const {
        if constexpr (WIDTH == 1) *to = word[0];
        if constexpr (WIDTH == 4) *reinterpret_cast<unsigned*>(to) = word[0];
        if constexpr (WIDTH == 8) *reinterpret_cast<uint2*>(to) = uint2{word[0], word[1]};
    }
    __device__ __forceinline__ void load(const unsigned char* from) {
        if constexpr (WIDTH == 1) word[0] = *from;
        if constexpr (WIDTH == 4) word[0] = *reinterpret_cast<const unsigned*>(from);
        if constexpr (WIDTH == 8) {
            uint2 pair = *reinterpret_cast<const uint2*>(from);
            word[0] = pair.x, word[1] = pair.y;
        }
    }
};

// Looks through each window, three taps of a row at a time so that their loads are under way together. PENDING: x owes
// its scale and shift, and what follows. WINNERS: writes who won instead of the maximum.
template <typename Group, bool PENDING, bool WINNERS>
__device__ __forceinline__ void look_through(const MaxPoolWindows& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH, TAPS = 3;
    const PoolGeometry& g = a.geometry;
    Walk<Group> walk(a.shape);
    float norm[2][WIDTH];
    if constexpr (PENDING) {
        walk.load_channels(norm, {a.norm, a.norm + walk.channels}, scratch);
        // Plus zero makes one zero of two, which tie. Then scale * x + shift is no negative zero either, but where it
        // stands for a number too small to write down.
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) norm[1][j] += 0.0f;
    }
    // The search starts from the lower bound, so no tap need be raised to it, and zeros outside only count where that is
    // below zero.
    const bool zeros_count = g.zeros && a.bounds.low < 0.0f;
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        int line, n, p, q;
        a.by_q.split(row, line, q);
        a.by_p.split(line, n, p);
        int top = p * g.stride - g.pad, left = q * g.stride - g.pad;
        // The first tap that takes part is the winner until another beats the least that there can be.
        const int first = g.zeros ? 0 : max(-top, 0) * g.window + max(-left, 0);
        float best[WIDTH];
        int winner[WIDTH];
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            best[j] = a.bounds.low;
            winner[j] = first;
        }
        for (int r = 0; r < g.window; ++r) {
            int h = top + r;
            for (int s = 0; s < g.window; s += TAPS) {
                Group group[TAPS];
                bool inside[TAPS];
#pragma unroll
                for (int i = 0; i < TAPS; ++i) {
                    int w = left + s + i;
                    inside[i] = h >= 0 && h < g.h && w >= 0 && w < g.w && s + i < g.window;
                    if (inside[i]) group[i] = walk.load(a.x, (n * g.h + h) * g.w + w);
                }
#pragma unroll
                for (int i = 0; i < TAPS; ++i) {
                    float x[WIDTH] = {};
                    if (inside[i]) {
                        unpack(group[i], x);
#pragma unroll
                        for (int j = 0; j < WIDTH; ++j) {
                            x[j] = PENDING ? min_nan(fmaf(norm[0][j], x[j], norm[1][j]), a.bounds.high) : x[j] + 0.0f;
                        }
                    }
                    if (inside[i] || zeros_count && s + i < g.window) {
#pragma unroll
                        for (int j = 0; j < WIDTH; ++j) {
                            float larger = max_nan(best[j], x[j]);
                            // By their bits, since a NaN that is already there stays.
                            bool wins = __float_as_int(larger) != __float_as_int(best[j]);
                            if (WINNERS && wins) winner[j] = r * g.window + s + i;
                            best[j] = larger;
                        }
                    }
                }
            }
        }
        if constexpr (WINNERS) {
            Winners<WIDTH> winners{};
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) winners.word[j / 4] |= winner[j] << 8 * (j % 4);
            winners.store(a.winners + walk.index(row));
        } else {
            walk.store(a.y, row, best);
        }
    }
}

// y[n,p,q,c] = the largest of its window over scale*x + shift between the bounds, or x. Neighbouring windows' taps come from L1 and L2. Floor: x and y once.
extern "C" __global__ void __launch_bounds__(256) max_pool_forward(const __grid_constant__ MaxPoolWindows a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) {
        if (a.norm) look_through<Quad, true, false>(a, scratch);
        else look_through<Quad, false, false>(a, scratch);
    } else {
        if (a.norm) look_through<element, true, false>(a, scratch);
        else look_through<element, false, false>(a, scratch);
    }
}

// The tap r*window + s that holds that maximum, for max_pool_backward: finding it once a window, not once for each
// pixel that asks, is worth the byte it costs to write and read. Windows of at most 16x16. Floor: x once, a byte for
// each of y.
extern "C" __global__ void __launch_bounds__(256) max_pool_winners(const __grid_constant__ MaxPoolWindows a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) {
        if (a.norm) look_through<Quad, true, true>(a, scratch);
        else look_through<Quad, false, true>(a, scratch);
    } else {
        if (a.norm) look_through<element, true, true>(a, scratch);
        else look_through<element, false, true>(a, scratch);
    }
}

// Adds `dy` to the channels that `tap` won.
template <int WIDTH>
__device__ __forceinline__ void take(float (&sum)[WIDTH], const float (&dy)[WIDTH], Winners<WIDTH> winners, int tap) {
#pragma unroll
    for (int i = 0; i < winners.WORDS; ++i) winners.word[i] ^= tap * 0x01010101u;
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) sum[j] += winners.word[j / 4] & 0xffu << 8 * (j % 4) ? 0.0f : dy[j];
}

template <typename Group> __device__ __forceinline__ void ask_windows(const MaxPoolBackward& a) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    const PoolGeometry& g = a.geometry;
    Walk<Group> walk(a.shape);
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        int line, n, h, w, p_last, q_last, rest;
        a.by_width.split(row, line, w);
        a.by_height.split(line, n, h);
        a.by_stride.split(h + g.pad, p_last, rest);
        a.by_stride.split(w + g.pad, q_last, rest);
        float sum[WIDTH] = {};
#pragma unroll 1
        for (int p = p_last - a.reach + 1; p <= p_last; ++p) {
            int r = h + g.pad - p * g.stride;
#pragma unroll 1
            for (int q = q_last - a.reach + 1; q <= q_last; ++q) {
                int s = w + g.pad - q * g.stride;
                if (p >= 0 && p < g.p && r < g.window && q >= 0 && q < g.q && s < g.window) {
                    int output = (n * g.p + p) * g.q + q;
                    Winners<WIDTH> winners;
                    winners.load(a.winners + walk.index(output));
                    float dy[WIDTH];
                    unpack(walk.load(a.dy, output), dy);
                    take(sum, dy, winners, r * g.window + s);
                }
            }
        }
        walk.store(a.dx, row, sum);
    }
}

// dx[n,h,w,c] = the sum of dy over the windows that this pixel won, in reading order. A window won by a zero outside
// has no taker. A row of `shape` is a pixel of dx. Floor: dx, dy and the winners once.
extern "C" __global__ void __launch_bounds__(256) max_pool_backward(const __grid_constant__ MaxPoolBackward a) {
    if (a.shape.wide) ask_windows<Quad>(a);
    else ask_windows<element>(a);
}

template <typename Group> __device__ __forceinline__ void ask_windows_3x3(const MaxPoolBackward& a) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    const PoolGeometry& g = a.geometry;
    Walk<Group> walk(a.shape);
    for (int row = walk.first; row < walk.rows; row += walk.step) {
        int line, n, p, q;
        a.by_width.split(row, line, q);
        a.by_height.split(line, n, p);
        Group group[2][2] = {};
        Winners<WIDTH> winners[2][2] = {};
#pragma unroll
        for (int up = 1; up >= 0; --up) {
#pragma unroll
            for (int left = 1; left >= 0; --left) {
                bool there = p - up >= 0 && p - up < g.p && q - left >= 0 && q - left < g.q;
                int output = (n * g.p + p - up) * g.q + q - left;
                if (there) {
                    group[up][left] = walk.load(a.dy, output);
                    winners[up][left].load(a.winners + walk.index(output));
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                int h = 2 * p - g.pad + i, w = 2 * q - g.pad + j;
                float sum[WIDTH] = {};
#pragma unroll
                for (int up = 1 - i; up >= 0; --up) {
#pragma unroll
                    for (int left = 1 - j; left >= 0; --left) {
                        float dy[WIDTH];
                        unpack(group[up][left], dy);
                        take(sum, dy, winners[up][left], (i + 2 * up) * 3 + j + 2 * left);
                    }
                }
                if (h >= 0 && h < g.h && w >= 0 && w < g.w) walk.store(a.dx, (n * g.h + h) * g.w + w, sum);
            }
        }
    }
}

// The same for windows of 3x3 in steps of 2. A row of `shape` is a cell of 2x2 pixels, which one window covers whole,
// the one on its left and the one above by half, and the one across the corner by a pixel: four loads for four pixels.
extern "C" __global__ void __launch_bounds__(256)
    max_pool_backward_3x3_stride2(const __grid_constant__ MaxPoolBackward a) {
    if (a.shape.wide) ask_windows_3x3<Quad>(a);
    else ask_windows_3x3<element>(a);
}
