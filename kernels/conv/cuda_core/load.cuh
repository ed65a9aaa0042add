// What brings the operands of a convolution on CUDA cores into shared memory, as multiply() of main_loop.cuh asks:
// fetch() starts the loads of the next slice of Tile::DEPTH into registers, store() puts them where the product reads
// them. The loads are in flight while the slice before is multiplied.
//
// Two kinds. Where memory has the summed index k innermost (pixels of the forward pass and of the data gradient,
// filters of the forward pass), two lanes share a row of the operand and each takes four neighbouring k: a sector of 32
// bytes of floats. Where it has the other index innermost, lanes run along a row. VECTOR: the innermost extent is a
// multiple of 4, so that a group of four never straddles its end and is loaded at once; otherwise element by element,
// each with its own place.
#pragma once

#include "conv/cuda_core/main_loop.cuh"
#include "conv/geometry.cuh"

namespace ffma {

// A place in the walk over a filter's taps and the channels under each.
struct Tap {
    int r, s, c;

    __device__ __forceinline__ void advance(int by, int columns, int channels) {
        c += by;
        while (c >= channels) {
            c -= channels;
            if (++s == columns) {
                s = 0;
                ++r;
            }
        }
    }
};

// What the batch norm in front still owes an input, or nothing.
struct Owed {
    const float* norm;  // [4, channels], or null
    int channels;
    Bounds bounds;

    // Scale and shift of WIDTH channels from c on.
    template <int WIDTH> __device__ __forceinline__ void read(float* scale, float* shift, int c) const {
        if (norm == nullptr) return;
        if (WIDTH == 4) {
            Four<float> a = read_four(norm + c), b = read_four(norm + channels + c);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                scale[i] = a.at[i];
                shift[i] = b.at[i];
            }
        } else {
            *scale = norm[c];
            *shift = norm[channels + c];
        }
    }
    // `valid`: not padding, which is zero after the transform.
    __device__ __forceinline__ void pay(float (&x)[4], const float (&scale)[4], const float (&shift)[4],
                                        const bool (&valid)[4]) const {
        if (norm == nullptr) return;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float paid = bounded(fmaf(x[i], scale[i], shift[i]), bounds);
            x[i] = valid[i] ? paid : 0.0f;
        }
    }
};

// --- k innermost -----------------------------------------------------------------------------------------------------

// The threads' shares of EXTENT rows of DEPTH: this thread has four k from k0() on, of rows row(0), row(1), ...
template <class Tile, int EXTENT> struct Across {
    static constexpr int LOADS = EXTENT * Tile::DEPTH / 4 / Tile::THREADS;
    static __device__ __forceinline__ int k0() { return threadIdx.x % 2 * 4; }
    static __device__ __forceinline__ int row(int load) { return threadIdx.x / 2 + load * (Tile::THREADS / 2); }
};

// Rows are pixels, k runs over taps and channels: the image under a filter. The tap (r, s) of a row lies DIRECTION*(r,
// s) away from the row's (top, left): ahead of it when a forward pass gathers x, behind it when a data gradient gathers
// dy.
template <class Tile, bool VECTOR, int DIRECTION> struct GatheredRows : Across<Tile, Tile::M> {
    using Share = Across<Tile, Tile::M>;
    static constexpr int LOADS = Share::LOADS, WIDTH = VECTOR ? 4 : 1;

    const element* image;
    int height, width, channels;
    int rows, columns;  // of the filter
    Owed owed;
    Tap tap;
    int top[LOADS], left[LOADS], origin[LOADS];
    Four<element> four[LOADS];
    float scale[4], shift[4];
    unsigned valid;

    __device__ __forceinline__ GatheredRows(const element* image, int height, int width, int channels, int rows,
                                            int columns, const float* norm, Bounds bounds)
        : image(image), height(height), width(width), channels(channels), rows(rows), columns(columns),
          owed{norm, channels, bounds}, tap{0, 0, 0} {
        tap.advance(Share::k0(), columns, channels);
    }

    // Row `load` of this thread is the pixel whose first tap lies at (y, x) of image n; none if not `exists`.
    __device__ __forceinline__ void place(int load, bool exists, int n, int y, int x) {
        top[load] = exists ? y : -(1 << 30);
        left[load] = x;
        origin[load] = ((n * height + y) * width + x) * channels;
    }

    __device__ __forceinline__ void fetch() {
        valid = 0;
        Tap at = tap;
#pragma unroll
        for (int i = 0; i < 4; i += WIDTH) {
            int offset = DIRECTION * (at.r * width + at.s) * channels + at.c;
#pragma unroll
            for (int load = 0; load < LOADS; ++load) {
                int y = top[load] + DIRECTION * at.r, x = left[load] + DIRECTION * at.s;
                bool inside = at.r < rows && unsigned(y) < unsigned(height) && unsigned(x) < unsigned(width);
                const element* from = image + (origin[load] + offset);
                if (i == 0) four[load] = Four<element>{};
                if (inside) {
                    if (VECTOR) four[load] = read_four(from);
                    else four[load].at[i] = *from;
                }
                valid |= unsigned(inside) << (4 * load + i);
            }
            owed.read<WIDTH>(scale + i, shift + i, at.c);
            if (!VECTOR) at.advance(1, columns, channels);
        }
        tap.advance(Tile::DEPTH, columns, channels);
    }

    __device__ __forceinline__ void store(float* to) const {
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            float x[4];
            bool inside[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[i] = widen(four[load].at[i]);
                inside[i] = valid >> (4 * load + i / WIDTH * WIDTH) & 1;
            }
            owed.pay(x, scale, shift, inside);
#pragma unroll
            for (int i = 0; i < 4; ++i) to[slot<Tile::M>(Share::k0() + i, Share::row(load))] = x[i];
        }
    }
};

// Rows are filters, k runs over a filter's taps and channels: a matrix as it lies in memory.
template <class Tile, bool VECTOR> struct WeightRows : Across<Tile, Tile::N> {
    using Share = Across<Tile, Tile::N>;
    static constexpr int LOADS = Share::LOADS, WIDTH = VECTOR ? 4 : 1;

    const float* w;
    int first, filters, length;
    int k = Share::k0();
    Four<float> four[LOADS];

    __device__ __forceinline__ WeightRows(const float* w, int first, int filters, int length)
        : w(w), first(first), filters(filters), length(length) {}

    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            int filter = first + Share::row(load);
            const float* from = w + filter * length + k;
            four[load] = Four<float>{};
            if (VECTOR) {
                if (filter < filters && k < length) four[load] = read_four(from);
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (filter < filters && k + i < length) four[load].at[i] = from[i];
            }
        }
        k += Tile::DEPTH;
    }

    __device__ __forceinline__ void store(float* to) const {
#pragma unroll
        for (int load = 0; load < LOADS; ++load)
#pragma unroll
            for (int i = 0; i < 4; ++i) to[slot<Tile::N>(Share::k0() + i, Share::row(load))] = four[load].at[i];
    }
};

// --- k outermost -----------------------------------------------------------------------------------------------------

// The threads' shares of DEPTH rows of EXTENT: this thread has four columns from column() on, of rows row(), row() +
// STEP, ...
template <class Tile, int EXTENT> struct Along {
    static constexpr int STEP = Tile::THREADS / (EXTENT / 4);
    static constexpr int LOADS = Tile::DEPTH / STEP;
    static __device__ __forceinline__ int column() { return threadIdx.x % (EXTENT / 4) * 4; }
    static __device__ __forceinline__ int row() { return threadIdx.x / (EXTENT / 4); }
    static __device__ __forceinline__ void store(float* to, int load, const Four<float>& four) {
        write_four(to + slot<EXTENT>(row() + load * STEP, column()), four);
    }
};

// The taps of a filter that reach one class of input pixels: rows r0, r0 + stride, ... (`rows` of them), columns
// likewise.
struct TapClass {
    int r0, s0, rows, columns;
};

// Columns are input channels, k runs over the taps of a class and all filters: the filters of a data gradient.
template <class Tile, bool VECTOR> struct WeightColumns : Along<Tile, Tile::N> {
    using Share = Along<Tile, Tile::N>;

    const float* w;
    const ConvGeometry& g;
    TapClass taps;
    int c;
    Tap tap;
    Four<float> four[Share::LOADS];

    __device__ __forceinline__ WeightColumns(const float* w, const ConvGeometry& g, TapClass taps, int first)
        : w(w), g(g), taps(taps), c(first + Share::column()), tap{0, 0, 0} {
        tap.advance(Share::row(), taps.columns, g.k);
    }

    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int load = 0; load < Share::LOADS; ++load) {
            int r = taps.r0 + tap.r * g.stride, s = taps.s0 + tap.s * g.stride;
            const float* from = w + ((tap.c * g.r + r) * g.s + s) * g.c + c;
            four[load] = Four<float>{};
            if (VECTOR) {
                if (tap.r < taps.rows && c < g.c) four[load] = read_four(from);
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (tap.r < taps.rows && c + i < g.c) four[load].at[i] = from[i];
            }
            tap.advance(Share::STEP, taps.columns, g.k);
        }
    }

    __device__ __forceinline__ void store(float* to) const {
#pragma unroll
        for (int load = 0; load < Share::LOADS; ++load) Share::store(to, load, four[load]);
    }
};

// Columns are filters, k runs over the pixels [begin, end) of dy: one operand of a weight gradient, as it lies in
// memory.
template <class Tile, bool VECTOR> struct PixelColumns : Along<Tile, Tile::M> {
    using Share = Along<Tile, Tile::M>;

    const element* dy;
    int k, filters, pixel, end;
    Four<element> four[Share::LOADS];

    __device__ __forceinline__ PixelColumns(const element* dy, int first, int filters, int begin, int end)
        : dy(dy), k(first + Share::column()), filters(filters), pixel(begin + Share::row()), end(end) {}

    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int load = 0; load < Share::LOADS; ++load, pixel += Share::STEP) {
            const element* from = dy + pixel * filters + k;
            four[load] = Four<element>{};
            if (VECTOR) {
                if (pixel < end && k < filters) four[load] = read_four(from);
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (pixel < end && k + i < filters) four[load].at[i] = from[i];
            }
        }
    }

    __device__ __forceinline__ void store(float* to) const {
#pragma unroll
        for (int load = 0; load < Share::LOADS; ++load) {
            Four<float> wide;
#pragma unroll
            for (int i = 0; i < 4; ++i) wide.at[i] = widen(four[load].at[i]);
            Share::store(to, load, wide);
        }
    }
};

// Columns are a filter's taps and channels, k runs over the output pixels [begin, end): x as the weight gradient sees
// it.
template <class Tile, bool VECTOR> struct GatheredColumns : Along<Tile, Tile::N> {
    using Share = Along<Tile, Tile::N>;
    static constexpr int WIDTH = VECTOR ? 4 : 1;

    const element* x;
    const ConvGeometry& g;
    const Divisor &p, &q;
    Owed owed;
    int pixel, end;
    Tap tap[4 / WIDTH];  // of each group of columns
    Four<element> four[Share::LOADS];
    float scale[4], shift[4];
    unsigned valid;

    __device__ __forceinline__ GatheredColumns(const element* x, const ConvGeometry& g, const Divisor& p,
                                               const Divisor& q, const float* norm, Bounds bounds, int first,
                                               int begin, int end)
        : x(x), g(g), p(p), q(q), owed{norm, g.c, bounds}, pixel(begin + Share::row()), end(end) {
        Tap at = {0, 0, 0};
        at.advance(first + Share::column(), g.s, g.c);
#pragma unroll
        for (int i = 0; i < 4; i += WIDTH) {
            tap[i / WIDTH] = at;
            owed.read<WIDTH>(scale + i, shift + i, at.c);
            at.advance(WIDTH, g.s, g.c);
        }
    }

    __device__ __forceinline__ void fetch() {
        valid = 0;
#pragma unroll
        for (int load = 0; load < Share::LOADS; ++load, pixel += Share::STEP) {
            int row, n, i, j;
            q.split(pixel, row, j);
            p.split(row, n, i);
#pragma unroll
            for (int group = 0; group < 4 / WIDTH; ++group) {
                const Tap& at = tap[group];
                int y = i * g.stride - g.pad + at.r, z = j * g.stride - g.pad + at.s;
                bool inside = pixel < end && at.r < g.r && unsigned(y) < unsigned(g.h) && unsigned(z) < unsigned(g.w);
                const element* from = x + (((n * g.h + y) * g.w + z) * g.c + at.c);
                if (group == 0) four[load] = Four<element>{};
                if (inside) {
                    if (VECTOR) four[load] = read_four(from);
                    else four[load].at[group] = *from;
                }
                valid |= unsigned(inside) << (4 * load + group);
            }
        }
    }

    __device__ __forceinline__ void store(float* to) const {
#pragma unroll
        for (int load = 0; load < Share::LOADS; ++load) {
            Four<float> wide;
            bool inside[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                wide.at[i] = widen(four[load].at[i]);
                inside[i] = valid >> (4 * load + i / WIDTH) & 1;
            }
            owed.pay(wide.at, scale, shift, inside);
            Share::store(to, load, wide);
        }
    }
};

}  // namespace ffma
