// The kernels of tests/cudarc_client.rs.

extern "C" __global__ void add(float *c, const float *a, const float *b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}

// The sum of each block's 256 values, through a tree in shared memory.
extern "C" __global__ void block_sum(float *out, const float *in) {
    extern __shared__ float values[];
    int t = threadIdx.x;
    values[t] = in[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) values[t] += values[t + half];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = values[0];
}
