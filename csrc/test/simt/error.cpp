#include "error.h"

#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "scheduler.h"

namespace simt {

std::string source_of(const void* pc) {
  Dl_info module;
  if (dladdr(pc, &module) == 0) return "?";
  const size_t offset = size_t(static_cast<const char*>(pc) - static_cast<char*>(module.dli_fbase));
  char text[512];
  std::snprintf(text, sizeof(text),
                "LD_PRELOAD= addr2line -Cfpise '%s' 0x%zx 2>/dev/null | sed 's/ (discr.*)//'",
                module.dli_fname, offset);
  std::string source;
  if (FILE* pipe = popen(text, "r")) {
    while (std::fgets(text, sizeof(text), pipe) != nullptr) source += text;
    pclose(pipe);
  }
  while (!source.empty() && source.back() == '\n') source.pop_back();
  if (!source.empty()) return source;
  return module.dli_sname != nullptr ? module.dli_sname : module.dli_fname;
}

void fail(const char* format, ...) {
  std::fprintf(stderr, "simt: ");
  if (running != nullptr) {
    std::fprintf(stderr, "kernel %s", source_of(running->kernel).c_str());
    if (block != nullptr) {
      std::fprintf(stderr, ", block (%u, %u, %u), thread (%u, %u, %u)", blockIdx.x, blockIdx.y,
                   blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    }
    std::fprintf(stderr, ":\n  ");
  }
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "\n");
  std::fflush(stderr);
  std::abort();
}

}  // namespace simt

// What assert() calls: found in this library before libc's.
extern "C" __attribute__((noreturn, visibility("hidden"))) void __assert_fail(
    const char* assertion, const char* file, unsigned line, const char*) noexcept {
  simt::fail("%s:%u: Assertion '%s' failed", file, line, assertion);
}
