// The kernels that the shim is tried on, and what each must come to.
#pragma once

#include <cuda_runtime.h>

namespace cases {

// Correct in every order: whether its result is right.
struct Correct {
  const char* name;
  bool (*run)();
};
extern const Correct correct[];
extern const int correct_count;

// A mistake: the message it dies with, in each flavour. Null: it runs through, and right; a star:
// it runs through, but wrong in a random order. A message behind a tilde names no lines; any other
// must name all lines of planted.cu that end in `// <name>`.
struct Planted {
  const char* name;
  bool (*run)();
  const char *plain, *sanitize, *race;
};
extern const Planted planted[];
extern const int planted_count;

// blocks × threads of kernel(arguments...), as the project launches.
template <class... P, class... A>
cudaError_t launch(dim3 blocks, dim3 threads, size_t shared, bool cooperative, void (*kernel)(P...),
                   A... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared;
  config.attrs = &attribute;
  config.numAttrs = cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
}

}  // namespace cases
