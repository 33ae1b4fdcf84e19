// Kernels for any x86-64 (SSE2), aarch64 (NEON), or whatever the compiler targets by default.
#define CGSV_ISA baseline
#define CGSV_ISA_NAME "baseline"
#define CGSV_VECTOR_BYTES 16
#include "kernels.inc"
