// The forward pass and the data gradient on tensor cores, where channels and filters are multiples of LANE.
//
//   conv_forward_TILE                y = conv(x, w) + bias kept between bounds that are given at launch, and its statistics
//   conv_forward_transformed_TILE    the same of max(0, scale * x + shift)
//   conv_forward_bounded_TILE        the same of scale * x + shift, kept between bounds that are given at launch
//   conv_backward_data_TILE          dx (+)= conv^T(dy, w), masked and reduced for the batch norm in front
//
// TILE is pixels x columns, which are filters or channels. main_loop.cuh has the tiling, shared memory and pipeline,
// epilogue.cuh what happens to the results.
//
// Floor: 2*N*P*Q*K*R*S*C FLOP; x (or dy) and w read once, y (or dx) written once; dx read where it accumulates, and y
// of the mask; two floats a column and tile of a reduction. Launch: a grid of tiles * column_tiles blocks in one
// dimension, column tiles fastest, so that blocks that share pixels run together; Tile::THREADS threads and
// Tile::SHARED_BYTES of dynamic shared memory (48, 36 and 24 KB). Every pointer but that of bias aligned to 16 bytes. A
// reduction has the workspace and the tickets of Reduction. At most 15 taps in each direction.
#pragma once

#include "conv/ampere/epilogue.cuh"

struct ConvForward {
    element* y;          // [N, P, Q, K]
    const element* x;    // [N, H, W, C]
    const float* norm;   // [4, C], of the transformed and bounded forms
    const element* w;    // [K, R, S, C]
    const float* bias;   // [K], or absent
    float* stats;        // [2, K], or absent
    float* partials;     // [tiles + groups][2][K]
    unsigned* tickets;   // [column_tiles][groups + 1]
    ConvGeometry shape;
    Divisor image, line; // by P*Q and by Q
    int tiles, column_tiles, group;
    Bounds bounds;       // of x, in the bounded form
    Bounds activation;   // of y; infinite for none
};

// What is done to the input: nothing; scale, shift and a ReLU; scale, shift and bounds.
enum class Input { AS_IT_IS, TRANSFORMED, BOUNDED };

template <typename T, Input INPUT> __device__ __forceinline__ void tensor_forward(const ConvForward& a) {
    using namespace ampere;
    extern __shared__ __align__(128) char shared[];
    const int tile = blockIdx.x / a.column_tiles;
    const int pixel_count = a.shape.n * a.shape.p * a.shape.q;
    const BlockPlace<T> place{tile, int(blockIdx.x) - tile * a.column_tiles, pixel_count, a.shape.k};
    const PixelCopies<T> pixels(a.shape, a.x, a.image, a.line, a.shape.pad, a.shape.pad, place.first_pixel());
    const FilterRows<T> filters(a.shape, a.w, place.first_column());
    Results<T> sum = {};
    if constexpr (INPUT == Input::AS_IT_IS) {
        multiply_slices<T>(sum, shared, pixels, filters, AsItIs{});
    } else {
        using Transform = InputTransform<T::PIXEL_COPIES, PixelCopies<T>::APART, INPUT == Input::BOUNDED>;
        const Transform transform(a.norm, a.bounds, a.shape.c, pixels.to, pixels.channel, pixels.taps);
        multiply_slices<T>(sum, shared, pixels, filters, transform);
    }
    const Reduction stats{a.stats, a.partials, a.tickets, a.tiles, a.group};
    store_output<T>(sum, a.y, a.bias, a.activation, stats, place, shared);
}

struct ConvBackwardData {
    element* dx;         // [N, H, W, C]
    const element* dy;   // [N, P, Q, K]
    const element* w;    // [K, R, S, C]
    const element* y;    // [N, H, W, C], or absent: no mask, no sums
    const float* norm;   // [4, C]
    float* sums;         // [2, C]
    float* partials;     // [tiles + groups][2][C]
    unsigned* tickets;   // [column_tiles][groups + 1]
    ConvGeometry shape;  // stride 1, or a 1x1 filter without padding
    Divisor image, line; // by the pixels of an image and of a row: H*W and W; with a stride P*Q and Q
    int tiles, column_tiles, group;
    Stops stops;         // with y
    int accumulate;
};

template <typename T> __device__ __forceinline__ void tensor_backward_data(const ConvBackwardData& a) {
    using namespace ampere;
    extern __shared__ __align__(128) char shared[];
    // The pass as a forward convolution of dy by the turned filters. With a stride only the sampled pixels are
    // computed.
    const ConvGeometry& s = a.shape;
    const bool strided = s.stride > 1;
    const ConvGeometry pass{s.n, s.p, s.q, s.k, s.c, s.r, s.s, 1, 0, strided ? s.p : s.h, strided ? s.q : s.w};
    const int tile = blockIdx.x / a.column_tiles;
    const BlockPlace<T> place{tile, int(blockIdx.x) - tile * a.column_tiles, pass.n * pass.p * pass.q, s.c};
    const PixelCopies<T> pixels(pass, a.dy, a.image, a.line, s.r - 1 - s.pad, s.s - 1 - s.pad, place.first_pixel());
    const ChannelRows<T> channels(pass, a.w, place.first_column());
    Results<T> sum = {};
    multiply_slices<T>(sum, shared, pixels, channels, AsItIs{});
    const GradientEnd end{a.dx, a.accumulate != 0, a.y, a.norm, a.stops};
    const Reduction sums{a.sums, a.partials, a.tickets, a.tiles, a.group};
    store_gradient<T>(sum, end, s, a.image, a.line, sums, place, shared);
}
