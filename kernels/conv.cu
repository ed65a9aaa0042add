// The convolution's kernels.
#include "conv_output_gradient.cuh"
#include "conv_weights.cuh"

#ifndef PRECISION_F32
// Weight gradient on tensor cores: FILTERS x COLUMNS of dw a block.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv_backward_weights_128x128(const __grid_constant__ ConvBackwardWeights a) {
    weights::backward<weights::Tile<128, 128, 64, 3>>(a);
}
extern "C" __global__ void __launch_bounds__(128, 3)
    conv_backward_weights_128x64(const __grid_constant__ ConvBackwardWeights a) {
    weights::backward<weights::Tile<128, 64, 64, 4>>(a);
}
extern "C" __global__ void __launch_bounds__(128, 3)
    conv_backward_weights_64x128(const __grid_constant__ ConvBackwardWeights a) {
    weights::backward<weights::Tile<64, 128, 64, 4>>(a);
}
extern "C" __global__ void __launch_bounds__(128, 4)
    conv_backward_weights_64x64(const __grid_constant__ ConvBackwardWeights a) {
    weights::backward<weights::Tile<64, 64, 32, 4>>(a);
}
#endif

// Adds the splits' partial weight gradients.
extern "C" __global__ void __launch_bounds__(256)
    conv_backward_weights_sum(const __grid_constant__ ConvBackwardWeightsSum a) {
    weights::sum_splits(a);
}

// The gradient of the output: formed from what a batch norm owes, and summed into the bias's.
extern "C" __global__ void __launch_bounds__(256) conv_form_gradient(const __grid_constant__ ConvFormGradient a) {
    output_gradient::form<LANE>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_form_gradient_scalar(const __grid_constant__ ConvFormGradient a) {
    output_gradient::form<1>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_backward_bias(const __grid_constant__ ConvBackwardBias a) {
    output_gradient::bias<LANE>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_backward_bias_scalar(const __grid_constant__ ConvBackwardBias a) {
    output_gradient::bias<1>(a);
}
