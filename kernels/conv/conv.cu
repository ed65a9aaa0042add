// Convolution: the kernels' names. Each family of implementations is a header; see there for formulas, tilings and contracts.

#include "conv/cuda_core/passes.cuh"
#include "conv/output_gradient.cuh"
#include "conv/ampere/weights.cuh"
#ifndef PRECISION_F32
#include "conv/stem/forward.cuh"
#include "conv/stem/weights.cuh"
#include "conv/ampere/passes.cuh"
#endif

#ifndef PRECISION_F32
// The forward pass and the data gradient on tensor cores: a tile of pixels x columns, a warp's part of it, and how many such
// blocks should fit a multiprocessor.
#define CONV_TENSOR(pixels, columns, warp_pixels, warp_columns, threads, blocks)                                            \
    using Tensor##pixels##x##columns = ampere::ProductTile<pixels, columns, warp_pixels, warp_columns>;                     \
    static_assert(Tensor##pixels##x##columns::THREADS == threads, "the launch bounds say how many threads a tile has");     \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_forward_##pixels##x##columns(const __grid_constant__ ConvForward a) {                                          \
        tensor_forward<Tensor##pixels##x##columns, Input::AS_IT_IS>(a);                                                     \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_forward_transformed_##pixels##x##columns(const __grid_constant__ ConvForward a) {                              \
        tensor_forward<Tensor##pixels##x##columns, Input::TRANSFORMED>(a);                                                  \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_forward_bounded_##pixels##x##columns(const __grid_constant__ ConvForward a) {                                  \
        tensor_forward<Tensor##pixels##x##columns, Input::BOUNDED>(a);                                                      \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_backward_data_##pixels##x##columns(const __grid_constant__ ConvBackwardData a) {                               \
        tensor_backward_data<Tensor##pixels##x##columns>(a);                                                                \
    }                                                                                                                       \
    SHARED_BYTES(conv_forward_##pixels##x##columns, Tensor##pixels##x##columns::SHARED_BYTES);                              \
    SHARED_BYTES(conv_forward_transformed_##pixels##x##columns, Tensor##pixels##x##columns::SHARED_BYTES);                  \
    SHARED_BYTES(conv_forward_bounded_##pixels##x##columns, Tensor##pixels##x##columns::SHARED_BYTES);                      \
    SHARED_BYTES(conv_backward_data_##pixels##x##columns, Tensor##pixels##x##columns::SHARED_BYTES)

CONV_TENSOR(128, 128, 64, 64, 128, 2);
CONV_TENSOR(128, 64, 64, 32, 128, 3);
CONV_TENSOR(64, 64, 32, 32, 128, 4);

// The weight gradient on tensor cores: filters x columns of dw a block, and how many of those should fit a multiprocessor.
#define CONV_WEIGHTS(filters, columns, threads, blocks)                                                                     \
    using Weights##filters##x##columns = weights::WeightsTile<filters, columns>;                                            \
    static_assert(Weights##filters##x##columns::THREADS == threads, "the launch bounds say how many threads a tile has");   \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_backward_weights_##filters##x##columns(const __grid_constant__ ConvBackwardWeights a) {                        \
        weights::backward<Weights##filters##x##columns, false>(a);                                                          \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_backward_weights_bounded_##filters##x##columns(const __grid_constant__ ConvBackwardWeights a) {                \
        weights::backward<Weights##filters##x##columns, true>(a);                                                           \
    }                                                                                                                       \
    SHARED_BYTES(conv_backward_weights_##filters##x##columns, Weights##filters##x##columns::SHARED_BYTES);                  \
    SHARED_BYTES(conv_backward_weights_bounded_##filters##x##columns, Weights##filters##x##columns::SHARED_BYTES)

CONV_WEIGHTS(128, 128, 128, 2);
CONV_WEIGHTS(128, 64, 64, 4);
CONV_WEIGHTS(64, 128, 64, 4);
CONV_WEIGHTS(64, 64, 32, 6);

// The stem's own, on tensor cores.
extern "C" __global__ void __launch_bounds__(128, 3) conv_stem_forward(const __grid_constant__ ConvStemForward a) {
    stem::forward(a);
}
SHARED_BYTES(conv_stem_forward, stem::FORWARD_SHARED);
extern "C" __global__ void __launch_bounds__(224, 2)
    conv_stem_backward_weights(const __grid_constant__ ConvStemBackwardWeights a) {
    stem::backward_weights(a);
}
SHARED_BYTES(conv_stem_backward_weights, stem::BACKWARD_SHARED);
#endif

// The three passes on CUDA cores: a tile of rows x columns results, so many threads, and how many such blocks should fit a
// multiprocessor.
#define CONV_FFMA(rows, columns, threads, blocks, path, vector)                                                             \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_ffma_forward_##rows##x##columns##_##path(const __grid_constant__ ConvFfmaForward a) {                          \
        ffma::forward<ffma::FfmaTile<rows, columns>, vector>(a);                                                            \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_ffma_backward_data_##rows##x##columns##_##path(const __grid_constant__ ConvFfmaBackwardData a) {               \
        ffma::backward_data<ffma::FfmaTile<rows, columns>, vector>(a);                                                      \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                           \
        conv_ffma_backward_weights_##rows##x##columns##_##path(const __grid_constant__ ConvFfmaBackwardWeights a) {         \
        ffma::backward_weights<ffma::FfmaTile<rows, columns>, vector>(a);                                                   \
    }

CONV_FFMA(128, 64, 128, 3, scalar, false)
#ifdef PRECISION_F32
// In the narrow precisions the tensor cores take what the network has that loads in vectors, and the rest goes element
// by element.
CONV_FFMA(128, 64, 128, 3, vector, true)
CONV_FFMA(32, 64, 32, 10, vector, true)
#endif

// Adds the splits' partial weight gradients.
extern "C" __global__ void __launch_bounds__(256)
    conv_backward_weights_sum(const __grid_constant__ ConvBackwardWeightsSum a) {
    weights::sum_splits(a);
}

// The gradient of the output: formed from what a batch norm owes, and summed into the bias's.
extern "C" __global__ void __launch_bounds__(256) conv_form_gradient(const __grid_constant__ ConvFormGradient a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) output_gradient::form<Quad>(a, scratch);
    else output_gradient::form<element>(a, scratch);
}
extern "C" __global__ void __launch_bounds__(256) conv_backward_bias(const __grid_constant__ ConvBackwardBias a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) output_gradient::bias<Quad>(a, scratch);
    else output_gradient::bias<element>(a, scratch);
}
