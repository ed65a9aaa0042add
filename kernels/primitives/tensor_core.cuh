// The instructions of a tensor-core main loop (sm_80): asynchronous copies, fragment loads, matrix products.
#pragma once

#include "primitives/element.cuh"

// The address of shared memory as the instructions below take it.
__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Starts a copy of 16 bytes from global to shared memory past the L1 cache; of zeros if not `valid`. `from` lies inside its
// operand in either case: whether the address of a copy that reads nothing is used all the same is up to the driver's
// assembler, and an access outside every allocation is a fault.
__device__ __forceinline__ void copy_async(unsigned to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}

// The same through the L1 cache, for what this block will read again.
__device__ __forceinline__ void copy_async_cached(unsigned to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}

// Closes a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }

// Waits until at most PENDING of this thread's groups are still under way. What they copied may then be read by this thread,
// so the compiler must not move reads of memory to before it.
template <int PENDING> __device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// A word of shared memory.
__device__ __forceinline__ unsigned load_word(unsigned address) {
    unsigned word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(address));
    return word;
}

// 8 bytes of it.
struct Pair {
    unsigned word[2];
};

__device__ __forceinline__ Pair load_pair(unsigned address) {
    Pair pair;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(pair.word[0]), "=r"(pair.word[1]) : "r"(address));
    return pair;
}
__device__ __forceinline__ void store_pair(unsigned address, const Pair& pair) {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(pair.word[0]), "r"(pair.word[1]) : "memory");
}

// 16 bytes of it.
__device__ __forceinline__ Quad load_quad(unsigned address) {
    Quad quad;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(quad.word[0]), "=r"(quad.word[1]), "=r"(quad.word[2]), "=r"(quad.word[3])
                 : "r"(address));
    return quad;
}
__device__ __forceinline__ void store_quad(unsigned address, const Quad& quad) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(quad.word[0]), "r"(quad.word[1]),
                 "r"(quad.word[2]), "r"(quad.word[3])
                 : "memory");
}

// Four 8x8 tiles of 16-bit elements (or 8x4 of 32-bit ones); lane l gives the address of row l%8 of tile l/8.
__device__ __forceinline__ void load_tiles(unsigned (&tile)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tile[0]), "=r"(tile[1]), "=r"(tile[2]), "=r"(tile[3])
                 : "r"(address));
}

// The same, each tile transposed.
__device__ __forceinline__ void load_tiles_transposed(unsigned (&tile)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tile[0]), "=r"(tile[1]), "=r"(tile[2]), "=r"(tile[3])
                 : "r"(address));
}

// c[16x8] += a[16x16] b[16x8] in bfloat16, summed in float.
__device__ __forceinline__ void multiply_bf16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c[16x8] += a[16x8] b[8x8] in TF32, summed in float.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A float rounded to TF32 as the tensor cores want it.
__device__ __forceinline__ unsigned round_tf32(float x) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
}
