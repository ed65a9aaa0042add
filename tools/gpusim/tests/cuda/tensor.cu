// Tensor-core products through cp.async, ldmatrix and mma.sync, as real GEMMs do them. Checked in tests/tensor.rs.

typedef unsigned short half_bits;

__device__ unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

__device__ void copy16(void *to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}

#define GEMM(name, type)                                                                                              \
    /* C[m][n] = A[m][k] B[n][k], multiples of 64, 64, 32: four warps, 32x32 a warp, two stages. */                   \
    extern "C" __global__ void __launch_bounds__(128) name(float *c, const half_bits *a, const half_bits *b, int n,   \
                                                           int k) {                                                   \
        __shared__ __align__(16) half_bits as[2][64][40], bs[2][64][40];                                              \
        int t = threadIdx.x, lane = t % 32, warp = t / 32, wm = warp / 2 * 32, wn = warp % 2 * 32;                    \
        int row = blockIdx.y * 64, column = blockIdx.x * 64;                                                          \
        float sum[2][4][4] = {};                                                                                      \
        auto load = [&](int stage, int k0) {                                                                          \
            for (int i = t; i < 256; i += 128) {                                                                      \
                copy16(&as[stage][i / 4][i % 4 * 8], a + (row + i / 4) * k + k0 + i % 4 * 8);                         \
                copy16(&bs[stage][i / 4][i % 4 * 8], b + (column + i / 4) * k + k0 + i % 4 * 8);                      \
            }                                                                                                         \
            asm volatile("cp.async.commit_group;");                                                                   \
        };                                                                                                            \
        load(0, 0);                                                                                                   \
        for (int k0 = 0, stage = 0; k0 < k; k0 += 32, stage ^= 1) {                                                   \
            if (k0 + 32 < k) {                                                                                        \
                load(stage ^ 1, k0 + 32);                                                                             \
                asm volatile("cp.async.wait_group 1;");                                                               \
            } else {                                                                                                  \
                asm volatile("cp.async.wait_group 0;");                                                               \
            }                                                                                                         \
            __syncthreads();                                                                                          \
            for (int kk = 0; kk < 32; kk += 16) {                                                                     \
                unsigned x[2][4], y[4][2];                                                                            \
                for (int i = 0; i < 2; i++)                                                                           \
                    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"                      \
                                 : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3])                         \
                                 : "r"(shared_address(&as[stage][wm + i * 16 + lane % 16][kk + lane / 16 * 8])));     \
                for (int j = 0; j < 4; j++)                                                                           \
                    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"                            \
                                 : "=r"(y[j][0]), "=r"(y[j][1])                                                       \
                                 : "r"(shared_address(&bs[stage][wn + j * 8 + lane % 8][kk + lane / 8 % 2 * 8])));    \
                for (int i = 0; i < 2; i++)                                                                           \
                    for (int j = 0; j < 4; j++)                                                                       \
                        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                   \
                                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                          \
                                     : "+f"(sum[i][j][0]), "+f"(sum[i][j][1]), "+f"(sum[i][j][2]), "+f"(sum[i][j][3]) \
                                     : "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]), "r"(y[j][0]),          \
                                       "r"(y[j][1]));                                                                 \
            }                                                                                                         \
            __syncthreads();                                                                                          \
        }                                                                                                             \
        for (int i = 0; i < 2; i++)                                                                                   \
            for (int j = 0; j < 4; j++)                                                                               \
                for (int r = 0; r < 4; r++)                                                                           \
                    c[(row + wm + i * 16 + lane / 4 + r / 2 * 8) * n + column + wn + j * 8 + lane % 4 * 2 + r % 2] =  \
                        sum[i][j][r];                                                                                 \
    }

GEMM(gemm_f16, "f16")
GEMM(gemm_bf16, "bf16")

// One 16x8x8 product in tf32, fragments loaded by hand.
extern "C" __global__ void product_tf32(float *c, const float *a, const float *b) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    unsigned x[4], y[2];
    float values[6] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4], b[t * 8 + g], b[(t + 4) * 8 + g]};
    for (int i = 0; i < 6; i++) {
        unsigned bits;
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(values[i]));
        if (i < 4) x[i] = bits; else y[i - 4] = bits;
    }
    float d[4];
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]), "f"(0.0f));
    for (int r = 0; r < 4; r++) c[(g + r / 2 * 8) * 8 + t * 2 + r % 2] = d[r];
}

// An 8x8 matrix of 16-bit elements through ldmatrix.trans.
extern "C" __global__ void transpose_8x8(half_bits *out, const half_bits *in) {
    __shared__ __align__(16) half_bits tile[8][8];
    int lane = threadIdx.x;
    tile[lane / 4][lane % 4 * 2] = in[lane * 2];
    tile[lane / 4][lane % 4 * 2 + 1] = in[lane * 2 + 1];
    __syncwarp();
    unsigned value;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(value) : "r"(shared_address(&tile[lane % 8][0])));
    ((unsigned *)out)[lane] = value;
}
