// Kernels for x86-64-v3: AVX2, F16C.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v3")
#define CGSV_ISA avx2
#define CGSV_ISA_NAME "avx2"
#define CGSV_VECTOR_BYTES 32
#include "kernels.inc"
#endif
