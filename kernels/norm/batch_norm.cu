// Batch norm as a scale and a shift a channel, its backward reduction, and the junction where a residual block ends.
//
// `norm [4, C]` is (scale, shift, mean, inverse standard deviation); z = scale*y + shift. M rows, C channels.
//
// The passes over activations stream: every element of theirs is read or written once, in 16-byte groups, and a thread
// keeps its channels' constants and sums in registers (rows.cuh says who computes what). Their floor is memory: below,
// "3 M*C" means that many elements of 2 bytes in bfloat16, 4 in float; arithmetic is at most 8 FLOP an element, so they
// hide it.
//
// Launch contract of the passes: block 256; grid (ceil(C / (columns * width)), row blocks), row blocks about what keeps
// the GPU full and at most ceil(M / lines); no dynamic shared memory; M*C < 2^30. `shape.wide` asks that C is a
// multiple of LANE and all activations lie on 16 bytes. The reductions want a workspace of [row blocks][sums][C] floats
// on 16 bytes and a zero ticket for each block across. The per-channel kernels: block 256, grid ceil(C / 256), no
// workspace; their floor is a launch.

#include "norm/statistics.cuh"
#include "primitives/rows.cuh"

struct BatchNormFinalise {
    float* norm;
    float* running_mean;
    float* running_variance;
    const float* stats; // [2, C]: mean, biased variance
    const float* gamma;
    const float* beta;
    const float* bias; // or null
    int channels;
    float momentum, complement; // complement = 1 - momentum, rounded once
    float epsilon;
};

struct BatchNormFold {
    float* norm;
    const float* running_mean;
    const float* running_variance;
    const float* gamma;
    const float* beta;
    const float* bias; // or null
    int channels;
    float epsilon;
};

struct BatchNormBackwardFinalise {
    float* k;
    float* dgamma;
    float* dbeta;
    const float* sums;
    const float* gamma;
    const float* norm;
    int channels;
    float rows;
};

struct BatchNormApply {
    element* a;
    const element* y;
    const float* norm;
    WalkShape shape;
    Bounds bounds;
};

struct BatchNormBackwardReduce {
    element* dz;
    float* sums;
    const element* da;
    const element* y;
    const float* norm;
    float* partials;
    unsigned* tickets;
    WalkShape shape;
    Stops stops;
};

struct ResidualForward {
    element* out;
    const element* y;
    const float* norm;
    const element* shortcut;
    const float* shortcut_norm; // or null: the shortcut is finished
    WalkShape shape;
    float low; // the least that comes out: 0 if a ReLU follows the sum, or minus infinity
};

struct ResidualBackward {
    element* dz; // or null, with out: no ReLU follows the sum
    float* sums;
    const element* dout;
    const element* out;
    const element* y;
    const float* norm;
    float* projection_sums;
    const element* projection_y; // or null, with its sums and norm: the shortcut is no projection
    const float* projection_norm;
    float* partials;
    unsigned* tickets;
    WalkShape shape;
};

__device__ __forceinline__ void store_norm(float* norm, int c, int channels, float gamma, float beta, float mean,
                                           float variance, float epsilon) {
    float istd = 1.0f / sqrtf(variance + epsilon);
    float scale = gamma * istd;
    norm[c] = scale;
    norm[channels + c] = fmaf(-mean, scale, beta);
    norm[2 * channels + c] = mean;
    norm[3 * channels + c] = istd;
}

// The batch's statistics become `norm`; running = momentum*running + (1 - momentum)*batch. Batch norm takes a bias out
// again, so the convolution did not add it, and it enters the running mean only.
extern "C" __global__ void __launch_bounds__(256) batch_norm_finalise(const __grid_constant__ BatchNormFinalise a) {
    int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= a.channels) return;
    float mean = a.stats[c], variance = a.stats[a.channels + c];
    store_norm(a.norm, c, a.channels, a.gamma[c], a.beta[c], mean, variance, a.epsilon);
    float biased = a.bias ? mean + a.bias[c] : mean;
    a.running_mean[c] = a.momentum * a.running_mean[c] + a.complement * biased;
    a.running_variance[c] = a.momentum * a.running_variance[c] + a.complement * variance;
}

// The running averages become `norm`, of the convolution without its bias.
extern "C" __global__ void __launch_bounds__(256) batch_norm_fold(const __grid_constant__ BatchNormFold a) {
    int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= a.channels) return;
    float mean = a.bias ? a.running_mean[c] - a.bias[c] : a.running_mean[c];
    store_norm(a.norm, c, a.channels, a.gamma[c], a.beta[c], mean, a.running_variance[c], a.epsilon);
}

// From sums = (sum dz, sum dz*(y - mean)) to the gradient dy = k0*dz + k1*y + k2 that the next kernels form while
// loading, which is gamma*istd*(dz - dbeta/M - (y - mean)*istd*dgamma/M) sorted by what it multiplies.
extern "C" __global__ void __launch_bounds__(256)
    batch_norm_backward_finalise(const __grid_constant__ BatchNormBackwardFinalise a) {
    int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= a.channels) return;
    float mean = a.norm[2 * a.channels + c], istd = a.norm[3 * a.channels + c];
    float dbeta = a.sums[c], dgamma = a.sums[a.channels + c] * istd;
    float k0 = a.gamma[c] * istd;
    a.k[c] = k0;
    a.k[a.channels + c] = -k0 * istd * dgamma / a.rows;
    a.k[2 * a.channels + c] = k0 * (mean * istd * dgamma - dbeta) / a.rows;
    a.dgamma[c] += dgamma;
    a.dbeta[c] += dbeta;
}

// a = scale*y + shift, kept between the bounds. Floor: 2 M*C.
template <typename Group> __device__ __forceinline__ void apply(const BatchNormApply& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape);
    float norm[2][WIDTH];
    walk.load_channels(norm, {a.norm, a.norm + walk.channels}, scratch);
    walk.template each_row<1>({a.y}, [&](int row, const Group(&group)[1]) {
        float x[WIDTH];
        unpack(group[0], x);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) x[j] = bounded(fmaf(norm[0][j], x[j], norm[1][j]), a.bounds);
        walk.store(a.a, row, x);
    });
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_apply(const __grid_constant__ BatchNormApply a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) apply<Quad>(a, scratch);
    else apply<element>(a, scratch);
}

// The larger of the two, which lets NaN through.
__device__ __forceinline__ float at_least(float low, float x) {
    asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(low));
    return x;
}

// out = max(low, scale*y + shift + shortcut), where a projected shortcut is scaled and shifted too. Floor: 3 M*C.
template <typename Group, bool PROJECTED>
__device__ __forceinline__ void join(const ResidualForward& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape);
    float norm[PROJECTED ? 4 : 2][WIDTH];
    if constexpr (PROJECTED) {
        const float* beside = a.shortcut_norm;
        walk.load_channels(norm, {a.norm, a.norm + walk.channels, beside, beside + walk.channels}, scratch);
    } else {
        walk.load_channels(norm, {a.norm, a.norm + walk.channels}, scratch);
    }
    walk.template each_row<2>({a.y, a.shortcut}, [&](int row, const Group(&group)[2]) {
        float x[WIDTH], beside[WIDTH];
        unpack(group[0], x);
        unpack(group[1], beside);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            if constexpr (PROJECTED) beside[j] = fmaf(norm[2][j], beside[j], norm[3][j]);
            x[j] = at_least(a.low, fmaf(norm[0][j], x[j], norm[1][j]) + beside[j]);
        }
        walk.store(a.out, row, x);
    });
}

extern "C" __global__ void __launch_bounds__(256) residual_forward(const __grid_constant__ ResidualForward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) join<Quad, false>(a, scratch);
    else join<element, false>(a, scratch);
}

extern "C" __global__ void __launch_bounds__(256)
    residual_forward_projected(const __grid_constant__ ResidualForward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) join<Quad, true>(a, scratch);
    else join<element, true>(a, scratch);
}

// dz = da where scale*y + shift is strictly between the bounds, and sums = (sum dz, sum dz*(y - mean)). Floor: 3 M*C.
template <typename Group>
__device__ __forceinline__ void backward_reduce(const BatchNormBackwardReduce& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH;
    Walk<Group> walk(a.shape);
    float norm[3][WIDTH];
    walk.load_channels(norm, {a.norm, a.norm + walk.channels, a.norm + 2 * walk.channels}, scratch);
    float sums[2][WIDTH] = {};
    walk.template each_row<2>({a.da, a.y}, [&](int row, const Group(&group)[2]) {
        float dz[WIDTH], x[WIDTH];
        unpack(group[0], dz);
        unpack(group[1], x);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            dz[j] = mask(dz[j], fmaf(norm[0][j], x[j], norm[1][j]), a.stops);
            sums[0][j] += dz[j];
            sums[1][j] = fmaf(dz[j], x[j] - norm[2][j], sums[1][j]);
        }
        walk.store(a.dz, row, dz);
    });
    walk.add_up(sums, a.partials, a.tickets, scratch,
                [&](int i, int channel, float sum) { a.sums[i * walk.channels + channel] = sum; });
}

extern "C" __global__ void __launch_bounds__(256, 2)
    batch_norm_backward_reduce(const __grid_constant__ BatchNormBackwardReduce a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) backward_reduce<Quad>(a, scratch);
    else backward_reduce<element>(a, scratch);
}

// dz = dout where out > 0, the gradient of both branches, and the sums of backward_reduce for the branch; those of a
// projected shortcut share sum dz. Floor: 4 M*C. Without MASKED, where no ReLU followed, dz is dout, and only the sums are
// written. Floor: 2 M*C. With a projection one more.
template <typename Group, bool MASKED, bool PROJECTED>
__device__ __forceinline__ void split(const ResidualBackward& a, Scratch& scratch) {
    constexpr int WIDTH = Walk<Group>::WIDTH, SUMS = PROJECTED ? 3 : 2;
    Walk<Group> walk(a.shape);
    float mean[PROJECTED ? 2 : 1][WIDTH];
    if constexpr (PROJECTED) {
        walk.load_channels(mean, {a.norm + 2 * walk.channels, a.projection_norm + 2 * walk.channels}, scratch);
    } else {
        walk.load_channels(mean, {a.norm + 2 * walk.channels}, scratch);
    }
    float sums[SUMS][WIDTH] = {};
    constexpr int FIRST = MASKED ? 2 : 1, ACTIVATIONS = FIRST + (PROJECTED ? 2 : 1);
    const element* activations[ACTIVATIONS] = {a.dout};
    if constexpr (MASKED) activations[1] = a.out;
    activations[FIRST] = a.y;
    if constexpr (PROJECTED) activations[FIRST + 1] = a.projection_y;
    walk.each_row(activations, [&](int row, const Group(&group)[ACTIVATIONS]) {
        float dz[WIDTH], x[WIDTH];
        unpack(group[0], dz);
        if constexpr (MASKED) unpack(group[1], x);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            if constexpr (MASKED) dz[j] = mask(dz[j], x[j]);
            sums[0][j] += dz[j];
        }
        if constexpr (MASKED) walk.store(a.dz, row, dz);
        // Each branch's y, and the sum behind it.
#pragma unroll
        for (int i = 0; i < SUMS - 1; ++i) {
            unpack(group[FIRST + i], x);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) sums[1 + i][j] = fmaf(dz[j], x[j] - mean[i][j], sums[1 + i][j]);
        }
    });
    walk.add_up(sums, a.partials, a.tickets, scratch, [&](int i, int channel, float sum) {
        if (i < 2) a.sums[i * walk.channels + channel] = sum;
        if constexpr (PROJECTED) {
            if (i != 1) a.projection_sums[i / 2 * walk.channels + channel] = sum;
        }
    });
}

extern "C" __global__ void __launch_bounds__(256, 2) residual_backward(const __grid_constant__ ResidualBackward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) split<Quad, true, false>(a, scratch);
    else split<element, true, false>(a, scratch);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    residual_backward_projected(const __grid_constant__ ResidualBackward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) split<Quad, true, true>(a, scratch);
    else split<element, true, true>(a, scratch);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    residual_backward_unmasked(const __grid_constant__ ResidualBackward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) split<Quad, false, false>(a, scratch);
    else split<element, false, false>(a, scratch);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    residual_backward_unmasked_projected(const __grid_constant__ ResidualBackward a) {
    __shared__ Scratch scratch;
    if (a.shape.wide) split<Quad, false, true>(a, scratch);
    else split<element, false, true>(a, scratch);
}
