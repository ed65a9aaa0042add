// Depthwise convolution, y[n,p,q,c] = sum over r,s of a[n, p*stride - pad + r, q*stride - pad + s, c] * w[r,s,c], and its
// two gradients, with what is fused to them (ends.cuh): a = activation(scale*x + shift) is paid while loading and zero
// outside the image; dy = k0*dz + k1*y + k2 likewise; statistics of y, or mask and sums of dx, are taken while storing.
//
// Floor: memory. Bytes of the tensors, with e bytes an element, X = N*H*W*C and Y = N*P*Q*C: forward e*(X + Y); data
// gradient e*(Y + X), where dy is owed e*Y more, where dx is masked e*X more, and as much where it is added to; weight
// gradient e*(Y + X), where dy is owed e*Y more. FLOPs: 2*R*S*Y each, 9 to 13 with what is owed for each element that
// moves: CUDA cores have three times as many at hand. Filters are float in every precision: nine for each channel cost
// nothing, and need no rounding.
//
// Tiling: columns.cuh for filters of 3x3 with stride 1 or 2 whose C is a multiple of LANE; pixels.cuh for all others.
//
// Launch contract: block 128; grid (slices of channels, blocks that share the rows), by rows.cuh, and for
// depthwise_backward_weights_scalar (…, …, R*S); no dynamic shared memory; fewer than 2^30 elements in x and in y.
// Kernels named by 3x3: activations on 16 bytes. Reductions want a workspace of [row blocks][3][C] floats for
// statistics, [2][C] for sums, [9][C] for weights ([R*S][row blocks][C] in the scalar kernel), on 16 bytes, and a zero
// ticket for each block across (and each tap, in the scalar kernel).

#define ROWS_THREADS 128

#include "depthwise/columns.cuh"
#include "depthwise/pixels.cuh"

struct DepthwiseForward {
    OutputArguments output;
    InputArguments input;
    const float* w;
    Columns columns;
};

struct DepthwiseBackwardData {
    InputGradientArguments output;
    GradientArguments dy;
    const float* w;
    Columns columns;
};

struct DepthwiseBackwardWeights {
    float* dw;
    GradientArguments dy;
    InputArguments input;
    float* partials;
    unsigned* tickets;
    Columns columns;
};

struct DepthwiseForwardScalar {
    OutputArguments output;
    InputArguments input;
    const float* w;
    WalkShape shape;
    Filter filter;
};

struct DepthwiseBackwardDataScalar {
    InputGradientArguments output;
    GradientArguments dy;
    const float* w;
    WalkShape shape;
    Filter filter;
};

struct DepthwiseBackwardWeightsScalar {
    float* dw;
    GradientArguments dy;
    InputArguments input;
    float* partials;
    unsigned* tickets;
    WalkShape shape;
    Filter filter;
};

template <int STRIDE> __device__ __forceinline__ void forward(const DepthwiseForward& a) {
    __shared__ Scratch scratch[2];
    const Walk<Quad> walk(a.columns.shape);
    const Input<Quad> input(a.input, walk, scratch[0]);
    Output<Quad> output(a.output);
    float w[9][LANE];
    load_filter(w, a.w, false, walk, scratch[0]);
    slide<STRIDE>(a.columns, walk, input, output, w);
    output.finish(a.output, walk, scratch);
}

extern "C" __global__ void __launch_bounds__(128, 3) depthwise_forward_3x3(const __grid_constant__ DepthwiseForward a) {
    forward<1>(a);
}
extern "C" __global__ void __launch_bounds__(128, 3)
    depthwise_forward_3x3_stride2(const __grid_constant__ DepthwiseForward a) {
    forward<2>(a);
}
extern "C" __global__ void __launch_bounds__(128, 8)
    depthwise_forward_scalar(const __grid_constant__ DepthwiseForwardScalar a) {
    __shared__ Scratch scratch[2];
    const Walk<element> walk(a.shape);
    const Input<element> input(a.input, walk, scratch[0]);
    Output<element> output(a.output);
    gather(a.filter, walk, input, output, a.w);
    output.finish(a.output, walk, scratch);
}

// With stride 1 it is a forward pass over dy, by the filter turned by half a circle, padded by 2 - pad.
template <int STRIDE> __device__ __forceinline__ void backward_data(const DepthwiseBackwardData& a) {
    __shared__ Scratch scratch;
    __shared__ alignas(16) float norm[3 * MAX_SPAN];
    const Walk<Quad> walk(a.columns.shape);
    const Gradient<Quad> dy(a.dy, walk, scratch);
    InputGradient<Quad> output(a.output, walk, norm);
    float w[9][LANE];
    load_filter(w, a.w, STRIDE == 1, walk, scratch);
    if constexpr (STRIDE == 1) slide<1>(a.columns, walk, dy, output, w);
    else spread(a.columns, walk, dy, output, w);
    output.finish(a.output, walk, scratch);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    depthwise_backward_data_3x3(const __grid_constant__ DepthwiseBackwardData a) {
    backward_data<1>(a);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    depthwise_backward_data_3x3_stride2(const __grid_constant__ DepthwiseBackwardData a) {
    backward_data<2>(a);
}
extern "C" __global__ void __launch_bounds__(128, 8)
    depthwise_backward_data_scalar(const __grid_constant__ DepthwiseBackwardDataScalar a) {
    __shared__ Scratch scratch;
    __shared__ alignas(16) float norm[3 * MAX_SPAN];
    const Walk<element> walk(a.shape);
    const Gradient<element> dy(a.dy, walk, scratch);
    InputGradient<element> output(a.output, walk, norm);
    scatter(a.filter, walk, dy, output, a.w);
    output.finish(a.output, walk, scratch);
}

template <int STRIDE> __device__ __forceinline__ void backward_weights(const DepthwiseBackwardWeights& a) {
    __shared__ Scratch scratch;
    const Walk<Quad> walk(a.columns.shape);
    const Input<Quad> input(a.input, walk, scratch);
    const Gradient<Quad> dy(a.dy, walk, scratch);
    float sums[9][LANE] = {};
    correlate<STRIDE>(a.columns, walk, input, dy, sums);
    walk.add_up(sums, a.partials, a.tickets, scratch,
                [&](int tap, int channel, float sum) { a.dw[tap * walk.channels + channel] += sum; });
}

extern "C" __global__ void __launch_bounds__(128, 2)
    depthwise_backward_weights_3x3(const __grid_constant__ DepthwiseBackwardWeights a) {
    backward_weights<1>(a);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    depthwise_backward_weights_3x3_stride2(const __grid_constant__ DepthwiseBackwardWeights a) {
    backward_weights<2>(a);
}
// A tap for each block along z.
extern "C" __global__ void __launch_bounds__(128, 8)
    depthwise_backward_weights_scalar(const __grid_constant__ DepthwiseBackwardWeightsScalar a) {
    __shared__ Scratch scratch;
    const Walk<element> walk(a.shape);
    const Input<element> input(a.input, walk, scratch);
    const Gradient<element> dy(a.dy, walk, scratch);
    const int tap = blockIdx.z, r = tap / a.filter.s;
    const float sum[1][1] = {{correlate(a.filter, walk, input, dy, r, tap - r * a.filter.s)}};
    walk.add_up(sum, a.partials + tap * gridDim.y * walk.channels, a.tickets + tap * gridDim.x, scratch,
                [&](int, int channel, float sum) { a.dw[tap * walk.channels + channel] += sum; });
}
