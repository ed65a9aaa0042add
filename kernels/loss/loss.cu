// Sigmoid, class-weighted binary cross-entropy and its asymmetric form, from logits z [N, C] and targets t in [0, 1].
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

// The asymmetric loss of Ridnik et al. 2021, of which the focal loss is a case. With p = sigmoid(z), q = 1 - p and
// s = max(p - margin, 0):
//
//     loss     = 1/(N C) sum weight[c] (-t q^positive ln p - (1 - t) s^negative ln(1 - s))
//
// Powers come from logarithms, which are at hand as -ln p = ln(1 + e^-z) and -ln q = ln(1 + e^z). Where the margin is 0,
// 1 - s is q, and so it is written: p has no digits for what is missing from 1.
struct AsymmetricForwardBackward {
    float* loss;     // [1]
    float* dlogits;  // [N, C]
    const float* logits;
    const float* targets;
    const float* weights;  // [C]
    int count;             // N C
    int classes;
    float positive;
    float negative;
    float margin;
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

// base^gamma from ln(base), which may be -inf.
__device__ __forceinline__ float power(float ln, float gamma) { return gamma == 0.0f ? 1.0f : expf(gamma * ln); }

// Launch, and the order of the sum: as of bce_forward_backward.
extern "C" __global__ void __launch_bounds__(256)
    asymmetric_forward_backward(const __grid_constant__ AsymmetricForwardBackward a) {
    __shared__ double warp_sums[8];
    double sum = 0.0;
    float count = static_cast<float>(a.count);
    for (int i = threadIdx.x; i < a.count; i += 256) {
        float z = a.logits[i], t = a.targets[i], weight = a.weights[i % a.classes];
        float e = expf(-fabsf(z)), log = log1pf(e);
        float p = (z >= 0.0f ? 1.0f : e) / (1.0f + e), q = (z >= 0.0f ? e : 1.0f) / (1.0f + e);
        float ln_p = -(log + (z < 0.0f ? -z : 0.0f)), ln_q = -(log + (z > 0.0f ? z : 0.0f));
        float missing = power(ln_q, a.positive);
        float yes = missing * -ln_p, dyes = -missing * (q - a.positive * p * ln_p);
        float no = 0.0f, dno = 0.0f, s = p - a.margin;
        if (a.margin == 0.0f) {
            float present = power(ln_p, a.negative);
            no = present * -ln_q;
            dno = present * (p - a.negative * q * ln_q);
        } else if (!(s <= 0.0f)) {
            // So that a NaN comes here too.
            float present = power(logf(s), a.negative), cost = -log1pf(-s);
            no = present * cost;
            dno = present * p * q * (1.0f / (q + a.margin) + a.negative * (cost / s));
        }
        sum += weight * (t * yes + (1.0f - t) * no);
        a.dlogits[i] = weight * (t * dyes + (1.0f - t) * dno) / count;
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
