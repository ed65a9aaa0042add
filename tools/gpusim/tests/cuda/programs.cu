// Whole kernels of the kinds that people write, each checked against plain Rust in tests/programs.rs.

extern "C" __global__ void transpose(float *out, const float *in, int rows, int columns) {
    __shared__ float tile[32][33];
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        if (y + j < rows && x < columns) tile[threadIdx.y + j][threadIdx.x] = in[(y + j) * columns + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    y = blockIdx.x * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        if (y + j < columns && x < rows) out[(y + j) * rows + x] = tile[threadIdx.x][threadIdx.y + j];
}

// The same without padding: every column of the tile is one bank.
extern "C" __global__ void transpose_conflicts(float *out, const float *in, int rows, int columns) {
    __shared__ float tile[32][32];
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        if (y + j < rows && x < columns) tile[threadIdx.y + j][threadIdx.x] = in[(y + j) * columns + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    y = blockIdx.x * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        if (y + j < columns && x < rows) out[(y + j) * rows + x] = tile[threadIdx.x][threadIdx.y + j];
}

// An inclusive scan of one block by shuffles.
extern "C" __global__ void scan(int *out, const int *in, int n) {
    __shared__ int sums[32];
    int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    int value = t < n ? in[t] : 0;
    for (int by = 1; by < 32; by *= 2) {
        int other = __shfl_up_sync(~0u, value, by);
        if (lane >= by) value += other;
    }
    if (lane == 31) sums[warp] = value;
    __syncthreads();
    if (warp == 0) {
        int sum = sums[lane];
        for (int by = 1; by < 32; by *= 2) {
            int other = __shfl_up_sync(~0u, sum, by);
            if (lane >= by) sum += other;
        }
        sums[lane] = sum;
    }
    __syncthreads();
    if (warp > 0) value += sums[warp - 1];
    if (t < n) out[t] = value;
}

extern "C" __global__ void histogram(unsigned *bins, const unsigned char *in, int n) {
    __shared__ unsigned mine[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) mine[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&mine[in[i]], 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&bins[i], mine[i]);
}

// C = A B for multiples of 16 T: T x T a thread, 256 threads, 16 deep.
template <int T> __device__ void product(float *c, const float *a, const float *b, int n, int k) {
    const int tile = 16 * T;
    __shared__ float as[16][tile], bs[16][tile];
    int t = threadIdx.x, tx = t % 16, ty = t / 16;
    int row = blockIdx.y * tile, column = blockIdx.x * tile;
    float sum[T][T] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        for (int i = t; i < 16 * tile; i += 256) {
            as[i % 16][i / 16] = a[(row + i / 16) * k + k0 + i % 16];
            bs[i / tile][i % tile] = b[(k0 + i / tile) * n + column + i % tile];
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < 16; kk++) {
            float x[T], y[T];
            for (int i = 0; i < T; i += 4) {
                *(float4 *)&x[i] = *(float4 *)&as[kk][ty * 4 + i * 16];
                *(float4 *)&y[i] = *(float4 *)&bs[kk][tx * 4 + i * 16];
            }
            for (int i = 0; i < T; i++)
                for (int j = 0; j < T; j++) sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < T; i++)
        for (int j = 0; j < T; j++)
            c[(row + ty * 4 + i / 4 * 64 + i % 4) * n + column + tx * 4 + j / 4 * 64 + j % 4] = sum[i][j];
}

extern "C" __global__ void __launch_bounds__(256) gemm_4(float *c, const float *a, const float *b, int n, int k) {
    product<4>(c, a, b, n, k);
}

extern "C" __global__ void __launch_bounds__(256) gemm_8(float *c, const float *a, const float *b, int n, int k) {
    product<8>(c, a, b, n, k);
}

// y = max(x scale[c] + shift[c], 0) for rows of 64 channels in bf16, eight channels a thread: loads and stores of 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
    affine_relu(uint4 *y, const uint4 *x, const float *scale, const float *shift, int n) {
    int channel = threadIdx.x % 8 * 8;
    float a[8], b[8];
    for (int i = 0; i < 8; i += 4) {
        *(float4 *)&a[i] = *(const float4 *)&scale[channel + i];
        *(float4 *)&b[i] = *(const float4 *)&shift[channel + i];
    }
    for (int at = blockIdx.x * 256 + threadIdx.x; at < n; at += gridDim.x * 256) {
        uint4 in = x[at], out;
        unsigned *from = &in.x, *to = &out.x;
        for (int i = 0; i < 4; i++) {
            float low = fmaxf(__uint_as_float(from[i] << 16) * a[2 * i] + b[2 * i], 0);
            float high = fmaxf(__uint_as_float(from[i] & 0xffff0000) * a[2 * i + 1] + b[2 * i + 1], 0);
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(to[i]) : "f"(high), "f"(low));
        }
        y[at] = out;
    }
}

// Steps to 1 of the Collatz sequence: every thread loops its own number of times.
extern "C" __global__ void collatz(int *steps, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long x = i + 1;
    int count = 0;
    while (x != 1) {
        x = x % 2 ? 3 * x + 1 : x / 2;
        count++;
    }
    steps[i] = count;
}

// The last block to finish adds up what all have written: fences and a ticket, no second launch.
__device__ unsigned ticket = 0;
extern "C" __global__ void sum_by_ticket(float *total, float *partial, const float *in, int n) {
    __shared__ float values[256];
    __shared__ bool last;
    int t = threadIdx.x;
    float sum = 0;
    for (int i = blockIdx.x * 256 + t; i < n; i += gridDim.x * 256) sum += in[i];
    values[t] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (t < half) values[t] += values[t + half];
        __syncthreads();
    }
    if (t == 0) {
        partial[blockIdx.x] = values[0];
        __threadfence();
        last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && t == 0) {
        __threadfence();
        float all = 0;
        for (int i = 0; i < gridDim.x; i++) all += partial[i];
        *total = all;
        ticket = 0;
    }
}

__device__ __noinline__ float polynomial(float x, int degree) {
    float value = 1;
    for (int i = 0; i < degree; i++) value = value * x + 1;
    return value;
}

// Calls, a switch, a local array with computed indices, the library's elementary functions.
extern "C" __global__ void mixture(float *out, const float *in, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float local[8];
    for (int j = 0; j < 8; j++) local[j] = in[(i + j) % n];
    float x = local[i % 8];
    switch (i % 5) {
        case 0: out[i] = polynomial(x, i % 7); break;
        case 1: out[i] = expf(x); break;
        case 2: out[i] = logf(x + 2) + sqrtf(x + 2); break;
        case 3: out[i] = sinf(x) * 0.5f + tanhf(x); break;
        default: out[i] = x / 3.0f;
    }
}

// Named barriers: half of the warps make, the other half uses.
extern "C" __global__ void produce_consume(int *out) {
    __shared__ int box[64];
    int t = threadIdx.x;
    for (int round = 0; round < 4; round++) {
        if (t < 64) {
            if (round > 0) asm volatile("bar.sync 2, 128;");
            box[t] = round * 100 + t;
            asm volatile("bar.arrive 1, 128;");
        } else {
            asm volatile("bar.sync 1, 128;");
            out[round * 64 + t - 64] = box[127 - t];
            if (round < 3) asm volatile("bar.arrive 2, 128;");
        }
    }
}
