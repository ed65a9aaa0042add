// Partial results of a reduction over rows, two numbers per column, and how they are merged: in order, so that the same
// input gives the same bits.
//
// They lie in tables [rows][2][columns], in shared memory or in the workspace.
#pragma once

// Mean and sum of squared deviations of some numbers.
struct Moments {
    float count, mean, m2;
};

// Those of two groups together (Chan, Golub and LeVeque). Either group may be empty.
__device__ __forceinline__ Moments merge(Moments a, Moments b) {
    float count = a.count + b.count;
    float share = count > 0.0f ? b.count / count : 0.0f;
    float delta = b.mean - a.mean;
    return Moments{count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

// Moments of N columns of numbers, a row after the other (Welford).
template <int N> struct Running {
    float count = 0.0f, mean[N] = {}, m2[N] = {};

    // One more row: begin() it, then add each column's number.
    __device__ __forceinline__ float begin() { return 1.0f / (count += 1.0f); }
    __device__ __forceinline__ void add(int i, float x, float share) {
        float delta = x - mean[i];
        mean[i] = fmaf(delta, share, mean[i]);
        m2[i] = fmaf(delta, x - mean[i], m2[i]);
    }
};

// A gradient's two sums: of dz and of dz * (y - mean).
struct Sums {
    float dz, product;
};

__device__ __forceinline__ Sums merge(Sums a, Sums b) { return Sums{a.dz + b.dz, a.product + b.product}; }

__device__ __forceinline__ void write_partial(float* partial, int columns, Moments x) {
    partial[0] = x.mean;
    partial[columns] = x.m2;
}
__device__ __forceinline__ void write_partial(float* partial, int columns, Sums x) {
    partial[0] = x.dz;
    partial[columns] = x.product;
}
// How many numbers a partial is made of is known from its place, or kept elsewhere.
__device__ __forceinline__ void read_partial(const float* partial, int columns, float count, Moments& x) {
    x = Moments{count, partial[0], partial[columns]};
}
__device__ __forceinline__ void read_partial(const float* partial, int columns, float, Sums& x) {
    x = Sums{partial[0], partial[columns]};
}

// The result proper: statistics are mean and biased variance.
__device__ __forceinline__ void write_result(float* result, int columns, Moments x) {
    result[0] = x.mean;
    result[columns] = x.m2 / x.count;
}
__device__ __forceinline__ void write_result(float* result, int columns, Sums x) { write_partial(result, columns, x); }

// Pixels that a row of a table stands for, if every row covers `span` of `pixels`, in order.
struct EvenSpans {
    int span, pixels;

    __device__ __forceinline__ float operator()(int row) const { return max(0, min(span, pixels - row * span)); }
};

// Rows first to last of a table merged, of the column that it points to; `count(row)` says how many numbers are in one.
template <typename Part, typename Count>
__device__ __forceinline__ Part merge_rows(const float* table, int columns, int first, int last, Count count) {
    Part total{};
#pragma unroll 8
    for (int row = first; row < last; ++row) {
        Part part;
        read_partial(table + 2 * row * columns, columns, count(row), part);
        total = merge(total, part);
    }
    return total;
}
