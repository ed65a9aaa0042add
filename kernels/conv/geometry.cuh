// The geometry of a convolution as its kernels see it.
#pragma once

// Division by a number known at launch, as a multiplication: x / divisor for 0 <= x < 2^31.
// (Granlund and Montgomery: multiplier = ceil(2^(31 + shift) / divisor), shift = ceil(log2 divisor).)
struct Divisor {
    int divisor;
    unsigned multiplier;
    unsigned shift;

    __device__ __forceinline__ void split(int x, int& quotient, int& remainder) const {
        quotient = divisor == 1 ? x : int(__umulhi(unsigned(x) << 1, multiplier) >> shift);
        remainder = x - quotient * divisor;
    }
};

// y[n,p,q,k] = sum over r,s,c of x[n, p*stride - pad + r, q*stride - pad + s, c] * w[k,r,s,c].
struct ConvGeometry {
    int n, h, w, c;
    int k, r, s;
    int stride, pad;
    int p, q;
};
