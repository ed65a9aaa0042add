// Sigmoid and class-weighted binary cross-entropy, from logits z [N, C] and targets t in [0, 1].
//
//     loss     = 1/(N C) sum weight[c] (max(z, 0) - z t + ln(1 + e^-|z|))
//     dlogits  = weight[c] (sigmoid(z) - t) / (N C)
//
// Everything comes from e = e^-|z|, which lies in 0..1: no logit overflows, and where sigmoid(z) is close to t their
// difference keeps its digits. Terms are float; their sum is double, which here is exact for all that a float can show.
//
// Floor: 12 bytes a logit, a few kilobytes: the launch itself. So one block is enough, and nobody waits for another.

struct BceForwardBackward {
    float* loss;     // [1]
    float* dlogits;  // [N, C]
    const float* logits;
    const float* targets;
    const float* weights;  // [C]
    int count;             // N C
    int classes;
};

struct Sigmoid {
    float* p;
    const float* z;
    int count;
};

__device__ __forceinline__ double shuffle_sum(double x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// Launch: grid [1], block 256, static shared memory. Thread t adds the terms t, t + 256, ... in this order; then a
// butterfly adds the lanes of a warp, and another the eight warps.
extern "C" __global__ void __launch_bounds__(256) bce_forward_backward(const __grid_constant__ BceForwardBackward a) {
    __shared__ double warp_sums[8];
    double sum = 0.0;
    float count = static_cast<float>(a.count);
    for (int i = threadIdx.x; i < a.count; i += 256) {
        float z = a.logits[i], t = a.targets[i], weight = a.weights[i % a.classes];
        float e = expf(-fabsf(z));
        // Not fmaxf, which makes a zero of a NaN.
        float positive = z <= 0.0f ? 0.0f : z;
        sum += weight * (positive - z * t + log1pf(e));
        // sigmoid(z) - t over its denominator 1 + e, with the ones cancelled by hand.
        float difference = z >= 0.0f ? (1.0f - t) - t * e : (1.0f - t) * e - t;
        a.dlogits[i] = weight * (difference / (1.0f + e)) / count;
    }
    sum = shuffle_sum(sum);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = shuffle_sum(threadIdx.x < 8 ? warp_sums[threadIdx.x] : 0.0);
        if (threadIdx.x == 0) a.loss[0] = static_cast<float>(sum / a.count);
    }
}

// p = 1/(1 + e^-z). Launch: grid [ceil(count / 256)], block 256.
extern "C" __global__ void __launch_bounds__(256) sigmoid(const __grid_constant__ Sigmoid a) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= a.count) return;
    float z = a.z[i];
    float e = expf(-fabsf(z));
    a.p[i] = (z >= 0.0f ? 1.0f : e) / (1.0f + e);
}
