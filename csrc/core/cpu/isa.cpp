// Which kernels this machine runs.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace cgsv::cpu {
namespace {

struct Choice {
  const Kernels* table;
  bool runs_here;
};

const Kernels& choose() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
  const bool has_avx2 = __builtin_cpu_supports("x86-64-v3");
  const bool has_avx512 = __builtin_cpu_supports("x86-64-v4");
#else
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi2");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512cd") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  const Choice choices[] = {
      {&avx512::table, has_avx512}, {&avx2::table, has_avx2}, {&baseline::table, true}};
#else
  const Choice choices[] = {{&baseline::table, true}};
#endif
  const char* wanted = std::getenv("CGSV_ISA");
  for (const Choice& choice : choices) {
    if (choice.runs_here && wanted && std::strcmp(wanted, choice.table->isa) == 0) {
      return *choice.table;
    }
  }
  for (const Choice& choice : choices) {
    if (choice.runs_here) return *choice.table;
  }
  return baseline::table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

const char* isa() { return kernels().isa; }

const char* compiled_isas() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  return "avx512 avx2 baseline";
#else
  return "baseline";
#endif
}

}  // namespace cgsv::cpu
