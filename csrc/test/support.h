// What the core's tests share: a check that names its line, ways to offer threads, guarded memory,
// values of the four dtypes, and a run on every instruction set.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "../core/cgsv.h"

namespace test {

using namespace cgsv;

inline int failures = 0;

#define CHECK(condition)                                                                          \
  do {                                                                                            \
    if (!(condition) && ++test::failures <= 20) {                                                 \
      std::fprintf(stderr, "%s:%d: [%s] %s\n", __FILE__, __LINE__, cgsv::cpu::isa(), #condition); \
    }                                                                                             \
  } while (0)

// ---------------------------------------------------------------------------------------- threads

// Every legal way to call the body: all at once, a thread a piece, pieces of odd sizes in odd order.
inline Threads serial(int count = 1) {
  Threads threads;
  threads.count = count;
  return threads;
}

inline Threads parallel(int count) {
  Threads threads;
  threads.count = count;
  threads.parallel_for = [](int64_t begin, int64_t end, int64_t, Threads::Body body,
                            void* context) {
    std::vector<std::thread> workers;
    for (int64_t i = begin; i < end; ++i) workers.emplace_back(body, i, i + 1, context);
    for (std::thread& worker : workers) worker.join();
  };
  return threads;
}

inline Threads odd_pieces(int count) {
  Threads threads;
  threads.count = count;
  threads.parallel_for = [](int64_t begin, int64_t end, int64_t, Threads::Body body,
                            void* context) {
    const int64_t middle = begin + (end - begin) / 3;
    std::thread first([=] { body(middle, end, context); });
    if (begin < middle) body(begin, middle, context);
    first.join();
  };
  return threads;
}

inline std::vector<Threads> all_threads() {
  return {serial(), serial(4), parallel(2), parallel(5), odd_pieces(4)};
}

// ---------------------------------------------------------------------------------------- memory

// `count` elements that begin `offset` elements past an aligned address, between guards.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, int64_t offset = 1)
      : count_(count), offset_(guard + offset), memory_(size_t(count + offset + 2 * guard)) {
    std::memset(static_cast<void*>(memory_.data()), 0xa5, memory_.size() * sizeof(T));
  }
  T* data() { return memory_.data() + offset_; }
  T& operator[](int64_t j) { return data()[j]; }
  std::vector<T> values() { return std::vector<T>(data(), data() + count_); }
  bool intact() const {
    const auto untouched = [](const T* begin, const T* end) {
      const auto* from = reinterpret_cast<const unsigned char*>(begin);
      const auto* to = reinterpret_cast<const unsigned char*>(end);
      return std::all_of(from, to, [](unsigned char byte) { return byte == 0xa5; });
    };
    const T* begin = memory_.data();
    return untouched(begin, begin + offset_) &&
           untouched(begin + offset_ + count_, begin + memory_.size());
  }

 private:
  static constexpr int64_t guard = 16;
  int64_t count_, offset_;
  std::vector<T> memory_;
};

template <class T>
bool same_bits(const T* a, const T* b, int64_t count) {
  return std::memcmp(a, b, size_t(count) * sizeof(T)) == 0;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), int64_t(a.size()));
}

// ---------------------------------------------------------------------------------------- dtypes

constexpr DType dtypes[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

// The 16 bits of v rounded to nearest even, by arithmetic on the exponent rather than on bits.
inline uint16_t half_bits(double v, int mantissa_bits, int least_exponent, int bias) {
  const int exponent_bits = 15 - mantissa_bits;
  const int infinity = (1 << exponent_bits) - 1;
  const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  if (std::isnan(v)) return uint16_t(sign | infinity << mantissa_bits | 1 << (mantissa_bits - 1));
  const double a = std::fabs(v);
  if (a == 0) return sign;
  if (std::isinf(a)) return uint16_t(sign | infinity << mantissa_bits);
  const int exponent = std::max(std::ilogb(a), least_exponent);
  const double units = std::nearbyint(std::ldexp(a, mantissa_bits - exponent));
  // A value that rounds up to the next power of two carries into the exponent by itself.
  const int64_t bits = int64_t(units) + (int64_t(exponent + bias - 1) << mantissa_bits);
  return uint16_t(sign | std::min(bits, int64_t(infinity) << mantissa_bits));
}

// v in the dtype, as raw bytes; through float for the halves, as everywhere.
inline void put(DType dtype, void* p, double v) {
  if (dtype == DType::f64) {
    std::memcpy(p, &v, 8);
  } else if (dtype == DType::f32) {
    const float f = float(v);
    std::memcpy(p, &f, 4);
  } else {
    const double f = double(float(v));
    const uint16_t bits =
        dtype == DType::bf16 ? half_bits(f, 7, -126, 127) : half_bits(f, 10, -14, 15);
    std::memcpy(p, &bits, 2);
  }
}

inline double get(DType dtype, const void* p) {
  if (dtype == DType::f64) {
    double v;
    std::memcpy(&v, p, 8);
    return v;
  }
  if (dtype == DType::f32) {
    float v;
    std::memcpy(&v, p, 4);
    return v;
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  const int mantissa_bits = dtype == DType::bf16 ? 7 : 10, bias = dtype == DType::bf16 ? 127 : 15;
  const int infinity = (1 << (15 - mantissa_bits)) - 1;
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const double mantissa = bits & ((1 << mantissa_bits) - 1);
  double v;
  if (exponent == infinity) {
    v = mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                      : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    v = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else {
    v = std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  }
  return bits & 0x8000 ? -v : v;
}

// ---------------------------------------------------------------------------------------- updates

inline std::vector<double> random_values(int64_t count, unsigned seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(count));
  for (double& v : values) v = normal(engine);
  return values;
}

// n rows of d random values: contiguous, strided with rubbish in between, or apart from each other;
// each begins at an address aligned to its element only.
class Updates {
 public:
  enum Layout { contiguous, strided, separate };

  Updates(DType dtype, int64_t n, int64_t d, Layout layout, unsigned seed)
      : values(size_t(n), std::vector<double>()) {
    const int64_t bytes = size_of(dtype), stride = layout == contiguous ? d : d + 5;
    memory_.assign(size_t(((n - 1) * stride + d + 1) * bytes), std::byte(0xff));  // NaN everywhere
    rows_.dtype = dtype;
    rows_.n = n;
    rows_.d = d;
    rows_.base = memory_.data() + bytes;
    rows_.row_stride = stride;
    for (int64_t i = 0; i < n; ++i) pointers_.push_back(rows_.base + i * stride * bytes);
    std::reverse(pointers_.begin(), pointers_.end());
    if (layout == separate) rows_.pointers = pointers_.data();
    for (int64_t i = 0; i < n; ++i) {
      for (double v : random_values(d, seed + unsigned(i))) {
        std::byte* p = row(i) + int64_t(values[size_t(i)].size()) * bytes;
        put(dtype, p, v);
        values[size_t(i)].push_back(get(dtype, p));
      }
    }
  }
  void set(int64_t i, int64_t j, double v) {
    std::byte* p = row(i) + j * size_of(rows_.dtype);
    put(rows_.dtype, p, v);
    values[size_t(i)][size_t(j)] = get(rows_.dtype, p);
  }
  const Rows& rows() const { return rows_; }

  std::vector<std::vector<double>> values;

 private:
  std::byte* row(int64_t i) const { return const_cast<std::byte*>(rows_.row(i)); }
  std::vector<std::byte> memory_;
  std::vector<const std::byte*> pointers_;
  Rows rows_;
};

constexpr Updates::Layout layouts[] = {Updates::contiguous, Updates::strided, Updates::separate};

// ---------------------------------------------------------------------------------------- ranking

// Indices of u[begin, end) by magnitude descending, a NaN first, then by index ascending.
template <class A>
std::vector<int64_t> ranking(const A* u, int64_t begin, int64_t end) {
  std::vector<int64_t> order;
  for (int64_t j = begin; j < end; ++j) order.push_back(j);
  std::stable_sort(order.begin(), order.end(), [u](int64_t a, int64_t b) {
    if (std::isnan(u[a]) || std::isnan(u[b])) return std::isnan(u[a]) && !std::isnan(u[b]);
    return std::fabs(u[a]) > std::fabs(u[b]);
  });
  return order;
}

// ---------------------------------------------------------------------------------------- main

// Runs the test in a process for each instruction set compiled in and there, and returns how main does.
inline int on_every_isa(void (*run)()) {
  std::istringstream isas(cpu::compiled_isas());
  int status = 0;
  for (std::string isa; isas >> isa;) {
    const pid_t child = fork();
    if (child == 0) {
      setenv("CGSV_ISA", isa.c_str(), 1);
      if (isa != cpu::isa()) {
        std::printf("%s: not on this machine\n", isa.c_str());
        std::fflush(stdout);
        _exit(0);
      }
      run();
      std::printf("%s: %d failures\n", isa.c_str(), failures);
      std::fflush(stdout);
      _exit(failures != 0);
    }
    int found = 0;
    waitpid(child, &found, 0);
    status |= !WIFEXITED(found) || WEXITSTATUS(found) != 0;
  }
  return status;
}

}  // namespace test
