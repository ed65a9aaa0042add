// The convolution's kernels.
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
