// Kernels for x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
// GCC's own AVX-512 headers leave "undefined" operands uninitialised on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#define CGSV_ISA avx512
#define CGSV_ISA_NAME "avx512"
#define CGSV_VECTOR_BYTES 64
#include "kernels.inc"
#endif
