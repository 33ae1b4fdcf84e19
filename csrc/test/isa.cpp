// Every instruction set gives the same bits, step by step; AVX-512 spelled out (avx512.cpp), so that it is
// tested where the machine has none.
#include "../core/cpu/kernels.h"
#include "support.h"

namespace cgsv::cpu {

// In place of isa.cpp's: the tests choose.
const Kernels* table = &baseline::table;
const Kernels& kernels() { return *table; }
const char* isa() { return table->isa; }
const char* compiled_isas() { return "baseline"; }

}  // namespace cgsv::cpu

namespace test {
namespace {

std::vector<const cpu::Kernels*> tables() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2")) {
    return {&cpu::avx2::table, &cpu::avx512::table};
  }
#endif
  return {};
}

// What a step has written, one after the other.
class Log {
 public:
  // Memory to write to, at an address aligned to an element only.
  std::byte* room(int64_t bytes, int64_t element) {
    memory_.emplace_back(size_t(bytes + element), std::byte(0xa5));
    return memory_.back().data() + element;
  }
  template <class T>
  T* room(int64_t count) {
    memory_.emplace_back(size_t(count) * sizeof(T), std::byte(0xa5));
    return reinterpret_cast<T*>(memory_.back().data());
  }
  bool operator==(const Log& other) const { return memory_ == other.memory_; }

 private:
  std::vector<std::vector<std::byte>> memory_;
};

MutableRows rows_in(Log& log, DType dtype, int64_t n, int64_t d) {
  MutableRows rows;
  rows.base = log.room(n * d * size_of(dtype), size_of(dtype));
  rows.row_stride = d;
  rows.n = n;
  rows.d = d;
  rows.dtype = dtype;
  return rows;
}

Log a_round(const Updates& updates, bool segmented) {
  const Rows& x = updates.rows();
  const int64_t n = x.n, d = x.d;
  const DType u_dtype = aggregate_dtype(x.dtype);
  const std::vector<int64_t> sizes =
      segmented ? std::vector<int64_t>{d / 3, 0, d - d / 3} : std::vector<int64_t>{d};
  const Segments segments = {sizes.data(), int64_t(sizes.size())};
  std::vector<double> importance;
  for (int64_t i = 0; i < n; ++i) importance.push_back(1.0 / double(i + 1));

  Log log;
  const Threads serial;
  cpu::RewardStep step = {};
  step.updates = x;
  step.importance = importance.data();
  step.gamma = 0.5, step.alpha = 0.9, step.beta = 2, step.floor = 1e-3;
  if (segmented) step.segments = segments;
  step.rewards = rows_in(log, x.dtype, n, d);
  step.new_importance = log.room<double>(n);
  step.cosines = log.room<double>(n);
  step.quotas = log.room<int64_t>(n * segments.count);
  step.aggregate = log.room(d * size_of(u_dtype), 0);
  step.magnitude = log.room(n * segments.count * size_of(u_dtype), 0);
  step.last_index = log.room<int64_t>(n * segments.count);
  step.norms = log.room<double>(n);
  step.valid = log.room<bool>(n);
  cpu::reward_step(step, serial);

  const Aggregate u = {step.aggregate, d, u_dtype};
  const Selection selection = {step.magnitude, step.last_index};
  for (DType dtype : dtypes) {
    cpu::download(u, selection, segments, rows_in(log, dtype, n, d), serial);
    const MutableRows parameters = rows_in(log, dtype, n, d);
    cpu::download(u, selection, segments, parameters, serial);  // something to add to
    cpu::download_(u, selection, segments, 0.7, parameters, serial);
    const Part parts[] = {{x.row(0), d / 2, x.dtype},
                          {x.row(n - 1) + d / 2 * size_of(x.dtype), d - d / 2, x.dtype}};
    cpu::pack_row({parts, 2}, rows_in(log, dtype, 1, d), log.room<double>(1), serial);
  }
  cpu::gram(x, log.room<double>(n * n), serial);
  const std::vector<int64_t> prefixes(size_t(segments.count), 0);
  cpu::histogram(u, {prefixes.data(), 1, u_dtype == DType::f64 ? 53 : 21, 10}, segments,
                 log.room<int64_t>(segments.count << 10), serial);
  return log;
}

void run() {
  for (DType dtype : dtypes) {
    for (int64_t n : {1, 2, 3, 5, 8, 13, 26}) {
      for (int64_t d : {1, 15, 128, 777, 4099}) {
        Updates updates(dtype, n, d, layouts[n % 4], unsigned(n));
        for (int64_t j = 0; j < d; j += 3) updates.set(0, j, double(j % 5));  // ties, zeros
        if (n > 3) updates.set(2, d - 1, NAN);
        if (n > 5) {
          for (int64_t j = 0; j < d; ++j)
            updates.set(4, j, 1e-30 * double(j));  // float64 dot products
        }
        cpu::table = &cpu::baseline::table;
        const Log expected = a_round(updates, n % 2);
        for (const cpu::Kernels* table : tables()) {
          cpu::table = table;
          where = table->isa;
          CHECK(a_round(updates, n % 2) == expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace test

int main() {
  test::run();
  return test::failures != 0;
}
