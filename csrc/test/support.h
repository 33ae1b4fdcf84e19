// What the core's tests share: a check that names its line, guarded memory and values of the four
// dtypes. Every test is written once and built for each backend (cpu_backend.h, cuda_backend.h), which
// says in which ways a call must give the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../core/cgsv.h"

namespace test {

using namespace cgsv;

inline int failures = 0;
inline std::string where;  // what the backend is doing

#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition) && ++test::failures <= 20) {                                       \
      std::fprintf(stderr, "%s:%d: [%s] %s\n", __FILE__, __LINE__, test::where.c_str(), \
                   #condition);                                                         \
    }                                                                                   \
  } while (0)

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

// n rows of d random values: contiguous, strided with rubbish in between, or apart from each other,
// each at an address aligned to its element only; or all aligned to 16 bytes.
class Updates {
 public:
  enum Layout { contiguous, strided, separate, aligned };

  Updates(DType dtype, int64_t n, int64_t d, Layout layout, unsigned seed)
      : values(size_t(n), std::vector<double>()) {
    const int64_t bytes = size_of(dtype);
    const int64_t stride = layout == contiguous ? d : layout == aligned ? (d + 15) / 8 * 8 : d + 5;
    memory_.assign(size_t(((n - 1) * stride + d + 1) * bytes), std::byte(0xff));  // NaN everywhere
    rows_.dtype = dtype;
    rows_.n = n;
    rows_.d = d;
    rows_.base = memory_.data() + (layout == aligned ? 0 : bytes);
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

constexpr Updates::Layout layouts[] = {Updates::contiguous, Updates::strided, Updates::separate,
                                       Updates::aligned};

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

}  // namespace test

#ifdef CGSV_SIMT
#include "cuda_backend.h"
#else
#include "cpu_backend.h"
#endif
