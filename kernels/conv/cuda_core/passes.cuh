// The three passes of a convolution on CUDA cores, in float: implicit GEMMs over NHWC activations and KRSC weights, for
// any shape whatever. This is the path of --precision f32, and in the other precisions of what tensor cores do not
// take: channel counts that no 16 bytes divide, operands that do not begin at a multiple of 16 bytes, filters of more
// than 15 taps a side, strided data gradients of larger filters. Weights are always read from their float masters.
//
//   forward          y[m][k]    = sum over (r,s,c)  x[m moved by (r,s)][c] w[k][r,s,c]        m = (n,p,q)
//   data gradient    dx[m][c]   = sum over (r,s,k)  dy[m moved back][k] w[k][r,s,c]           m = (n,h,w)
//   weight gradient  dw[k][rsc] = sum over (n,p,q)  dy[npq][k] x[npq moved by (r,s)][c]
//
// Tiling and shared memory: main_loop.cuh. Floor: 2 N P Q K R S C FLOP at the CUDA cores' rate; every operand read
// once.
//
// Launch contract, for a tile of M x N results (M N / 64 threads, static shared memory only):
//   ..._vector: --precision f32 only; C and K multiples of 4, every pointer aligned to 16 bytes. ..._scalar: any. All
//   sizes and lengths below 2^31.
//   Blocks are numbered linearly, tiles of columns fastest, so that neighbours share activations in the L2 cache.
//   tickets: one zero counter a column tile (weight gradient: a tile); left at zero.
//   partials: see each pass.
#pragma once

#include "conv/cuda_core/load.cuh"
#include "primitives/partials.cuh"
#include "primitives/reduce.cuh"

struct ConvFfmaForward {
    element* y;
    float* stats;  // [2, K]: mean and biased variance of the stored y; or null
    const element* x;
    const float* norm;  // [4, C]: x stands for scale x + shift, kept between the bounds; or null
    const float* w;
    const float* bias;  // [K], or null
    float* partials;    // with stats: [row tiles][2][K]
    unsigned* tickets;
    ConvGeometry shape;
    Divisor p, q;
    Bounds bounds;      // of x, with norm
    Bounds activation;  // of y, behind the bias; infinite for none
};

struct ConvFfmaBackwardData {
    element* dx;
    float* sums;        // [2, C]: sum of dz and of dz (y - mean), dz being what is stored in dx; or null: no epilogue
    const element* y;   // with sums: shaped like dx
    const float* norm;  // with sums: [4, C]
    const element* dy;
    const float* w;
    float* partials;  // with sums: [row tiles][2][C]
    unsigned* tickets;
    ConvGeometry shape;
    Divisor class_height, class_width;  // ceil(H / stride), ceil(W / stride): the extents of a class of pixels
    int accumulate;                     // dx +=
    Stops stops;                        // with sums
};

struct ConvFfmaBackwardWeights {
    float* dw;  // +=
    const element* dy;
    const element* x;
    const float* norm;  // as in the forward pass
    float* partials;    // with several splits: [tiles][splits][M N]
    unsigned* tickets;
    ConvGeometry shape;
    Divisor p, q;
    int splits;
    Bounds bounds;
};

namespace ffma {

// Two numbers a column of this block's tile, in whose first row's threads they are, to partials [row tiles][2][columns].
template <class Tile, bool VECTOR>
__device__ __forceinline__ void store_partials(float* partials, const float (&one)[8], const float (&other)[8],
                                               int columns, int column_tile, int row_tile) {
    if (Tile::row(0) != 0) return;
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
        int column = column_tile * Tile::N + Tile::column(j);
        float* to = partials + 2 * row_tile * columns + column;
        store_four<VECTOR>(to, {one[j], one[j + 1], one[j + 2], one[j + 3]}, columns - column);
        store_four<VECTOR>(to + columns, {other[j], other[j + 1], other[j + 2], other[j + 3]}, columns - column);
    }
}

// The result of each column of this block's column tile, from all row tiles' partials in their order.
template <class Tile, typename Part>
__device__ __forceinline__ void merge_tiles(float* result, const float* partials, int columns, int column_tile,
                                            int row_tiles, EvenSpans spans) {
    for (int j = threadIdx.x; j < Tile::N; j += Tile::THREADS) {
        int column = column_tile * Tile::N + j;
        if (column >= columns) return;
        Part all = merge_rows<Part>(partials + column, columns, 0, row_tiles, spans);
        write_result(result + column, columns, all);
    }
}

// Grid: row tiles of N P Q pixels, times column tiles of K filters.
template <class Tile, bool VECTOR> __device__ __forceinline__ void forward(const ConvFfmaForward& a) {
    const ConvGeometry& g = a.shape;
    int column_tiles = (g.k + Tile::N - 1) / Tile::N, row_tiles = gridDim.x / column_tiles;
    int row_tile = blockIdx.x / column_tiles, column_tile = blockIdx.x % column_tiles;
    int pixels = g.n * g.p * g.q, length = g.r * g.s * g.c;

    using Pixels = GatheredRows<Tile, VECTOR, 1>;
    Pixels x(a.x, g.h, g.w, g.c, g.r, g.s, a.norm, a.bounds);
#pragma unroll
    for (int load = 0; load < Pixels::LOADS; ++load) {
        int pixel = row_tile * Tile::M + Pixels::Share::row(load), row, n, p, q;
        a.q.split(pixel, row, q);
        a.p.split(row, n, p);
        x.place(load, pixel < pixels, n, p * g.stride - g.pad, q * g.stride - g.pad);
    }
    WeightRows<Tile, VECTOR> w(a.w, column_tile * Tile::N, g.k, length);
    float sum[8][8];
    multiply<Tile>(sum, x, w, (length + Tile::DEPTH - 1) / Tile::DEPTH);

    // Bias, activation, rounding, the store; what was stored stays in `sum`.
    int rows = min(Tile::M, pixels - row_tile * Tile::M);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int k = column_tile * Tile::N + Tile::column(4 * half);
        float bias[4] = {};
        if (a.bias != nullptr) load_four<VECTOR>(bias, a.bias + k, g.k - k);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float four[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                four[j] = bounded(sum[i][4 * half + j] + bias[j], a.activation);
                sum[i][4 * half + j] = widen(narrow<element>(four[j]));
            }
            int row = Tile::row(i);
            if (row < rows) store_four<VECTOR>(a.y + (row_tile * Tile::M + row) * g.k + k, four, g.k - k);
        }
    }
    if (a.stats == nullptr) return;

    // Statistics around the tile's own mean, so that a large mean costs no digits.
    float mean[8], m2[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        mean[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (Tile::row(i) < rows) mean[j] += sum[i][j];
    }
    add_columns<Tile>(mean);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        mean[j] /= float(rows);
        m2[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float delta = sum[i][j] - mean[j];
            if (Tile::row(i) < rows) m2[j] = fmaf(delta, delta, m2[j]);
        }
    }
    add_columns<Tile>(m2);
    store_partials<Tile, VECTOR>(a.partials, mean, m2, g.k, column_tile, row_tile);
    if (!last_block(a.tickets + column_tile, row_tiles)) return;
    merge_tiles<Tile, Moments>(a.stats, a.partials, g.k, column_tile, row_tiles, EvenSpans{Tile::M, pixels});
}

// Mask, store and sum: dz = dx where scale y + shift is strictly between the bounds. `pixel`: of this thread's rows,
// negative where there is none.
template <class Tile, bool VECTOR>
__device__ __forceinline__ void store_gradient(const ConvFfmaBackwardData& a, float (&sum)[8][8], const int (&pixel)[8],
                                               int column_tile, int row_tile, int row_tiles) {
    int channels = a.shape.c;
    float total[8] = {}, moment[8] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int c = column_tile * Tile::N + Tile::column(4 * half), left = channels - c;
        float scale[4], shift[4], mean[4];
        if (a.sums != nullptr) {
            load_four<VECTOR>(scale, a.norm + c, left);
            load_four<VECTOR>(shift, a.norm + channels + c, left);
            load_four<VECTOR>(mean, a.norm + 2 * channels + c, left);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (pixel[i] < 0) continue;
            int at = pixel[i] * channels + c;
            float four[4], old[4], y[4];
            if (a.accumulate) load_four<VECTOR>(old, a.dx + at, left);
            if (a.sums != nullptr) load_four<VECTOR>(y, a.y + at, left);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                four[j] = sum[i][4 * half + j];
                if (a.accumulate) four[j] += old[j];
                if (a.sums != nullptr) {
                    four[j] = mask(four[j], fmaf(scale[j], y[j], shift[j]), a.stops);
                    float dz = widen(narrow<element>(four[j]));
                    total[4 * half + j] += dz;
                    moment[4 * half + j] = fmaf(dz, y[j] - mean[j], moment[4 * half + j]);
                }
            }
            store_four<VECTOR>(a.dx + at, four, left);
        }
    }
    if (a.sums == nullptr) return;

    add_columns<Tile>(total);
    add_columns<Tile>(moment);
    store_partials<Tile, VECTOR>(a.partials, total, moment, channels, column_tile, row_tile);
    if (!last_block(a.tickets + column_tile, row_tiles)) return;
    // How many pixels a tile has does not matter to sums.
    merge_tiles<Tile, Sums>(a.sums, a.partials, channels, column_tile, row_tiles, EvenSpans{});
}

// With a stride, the taps that reach an input pixel (h, w) depend on its class, (h mod stride, w mod stride): tap r
// does if stride divides h + pad - r. A row tile has pixels of one class only, so nothing is multiplied in vain; a
// class that no tap reaches, three of the four under a 1x1 filter of stride 2, is stored as zeros without a product.
//
// Grid: stride^2 classes, times row tiles of N ceil(H/stride) ceil(W/stride) pixels, times column tiles of C channels.
template <class Tile, bool VECTOR> __device__ __forceinline__ void backward_data(const ConvFfmaBackwardData& a) {
    const ConvGeometry& g = a.shape;
    int column_tiles = (g.c + Tile::N - 1) / Tile::N, row_tiles = gridDim.x / column_tiles;
    int row_tile = blockIdx.x / column_tiles, column_tile = blockIdx.x % column_tiles;
    int class_tiles = row_tiles / (g.stride * g.stride), which = row_tile / class_tiles;
    int class_h = which / g.stride, class_w = which % g.stride;
    int first = (row_tile - which * class_tiles) * Tile::M;
    int pixels = g.n * a.class_height.divisor * a.class_width.divisor;

    TapClass taps;
    taps.r0 = (class_h + g.pad) % g.stride;
    taps.s0 = (class_w + g.pad) % g.stride;
    taps.rows = max(0, (g.r - taps.r0 + g.stride - 1) / g.stride);
    taps.columns = max(0, (g.s - taps.s0 + g.stride - 1) / g.stride);
    int length = taps.rows * taps.columns * g.k;
    if (length == 0 && a.accumulate && a.sums == nullptr) return;

    using Pixels = GatheredRows<Tile, VECTOR, -1>;
    Pixels dy(a.dy, g.p, g.q, g.k, taps.rows, taps.columns, nullptr, Bounds{});
    int p0 = (class_h + g.pad) / g.stride, q0 = (class_w + g.pad) / g.stride;
#pragma unroll
    for (int load = 0; load < Pixels::LOADS; ++load) {
        int index = first + Pixels::Share::row(load), row, n, i, j;
        a.class_width.split(index, row, j);
        a.class_height.split(row, n, i);
        dy.place(load, index < pixels, n, p0 + i, q0 + j);
    }
    WeightColumns<Tile, VECTOR> w(a.w, g, taps, column_tile * Tile::N);
    float sum[8][8];
    multiply<Tile>(sum, dy, w, (length + Tile::DEPTH - 1) / Tile::DEPTH);

    int pixel[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int index = first + Tile::row(i), row, n, y, x;
        a.class_width.split(index, row, x);
        a.class_height.split(row, n, y);
        y = y * g.stride + class_h;
        x = x * g.stride + class_w;
        pixel[i] = index < pixels && y < g.h && x < g.w ? (n * g.h + y) * g.w + x : -1;
    }
    store_gradient<Tile, VECTOR>(a, sum, pixel, column_tile, row_tile, row_tiles);
}

// Grid: splits, times row tiles of K filters, times column tiles of R S C.
//
// A split sums over its own range of pixels. Where there are several, each leaves its sums in the workspace, in the
// order in which threads hold them, and the last block of a tile adds them split by split.
template <class Tile, bool VECTOR> __device__ __forceinline__ void backward_weights(const ConvFfmaBackwardWeights& a) {
    const ConvGeometry& g = a.shape;
    int pixels = g.n * g.p * g.q, length = g.r * g.s * g.c;
    int column_tiles = (length + Tile::N - 1) / Tile::N, tiles = gridDim.x / a.splits;
    int tile = blockIdx.x % tiles, split = blockIdx.x / tiles;
    int row_tile = tile / column_tiles, column_tile = tile % column_tiles;

    int slices = (pixels + Tile::DEPTH - 1) / Tile::DEPTH;
    int share = (slices + a.splits - 1) / a.splits;
    int begin = min(slices, split * share), end = min(slices, begin + share);
    PixelColumns<Tile, VECTOR> dy(a.dy, row_tile * Tile::M, g.k, begin * Tile::DEPTH, pixels);
    GatheredColumns<Tile, VECTOR> x(a.x, g, a.p, a.q, a.norm, a.bounds, column_tile * Tile::N, begin * Tile::DEPTH,
                                    pixels);
    float sum[8][8];
    multiply<Tile>(sum, dy, x, end - begin);

    if (a.splits > 1) {
        float* parts = a.partials + (tile * a.splits * 16 * Tile::THREADS + threadIdx.x) * 4;
        constexpr int NEXT = 4 * Tile::THREADS;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const float* four = &sum[i / 2][i % 2 * 4];
            write_four(parts + (split * 16 + i) * NEXT, Four<float>{{four[0], four[1], four[2], four[3]}});
        }
        if (!last_block(a.tickets + tile, a.splits)) return;
#pragma unroll
        for (int i = 0; i < 16; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) sum[i / 2][i % 2 * 4 + j] = 0.0f;
#pragma unroll 1
        for (int other = 0; other < a.splits; ++other)
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                Four<float> part = read_four(parts + (other * 16 + i) * NEXT);
#pragma unroll
                for (int j = 0; j < 4; ++j) sum[i / 2][i % 2 * 4 + j] += part.at[j];
            }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int column = column_tile * Tile::N + Tile::column(4 * half);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            int k = row_tile * Tile::M + Tile::row(i);
            if (k >= g.k) continue;
            float* to = a.dw + k * length + column;
            float four[4];
            load_four<VECTOR>(four, to, length - column);
#pragma unroll
            for (int j = 0; j < 4; ++j) four[j] += sum[i][4 * half + j];
            store_four<VECTOR>(to, four, length - column);
        }
    }
}

}  // namespace ffma
