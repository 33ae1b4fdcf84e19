// The 16-bit floating types: every one of them widened, and doubles rounded to the nearest of them,
// found by search in the list of all their values.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace {

int failures = 0;

void expect(bool right, const char* what, double value) {
  if (!right && ++failures <= 20) std::printf("%s is wrong for %a\n", what, value);
}

// A format of 1 + e + m bits.
struct Format {
  int e, m;
  int bias() const { return (1 << (e - 1)) - 1; }
  unsigned infinity() const { return ((1u << e) - 1) << m; }

  double value(unsigned bits) const {  // of a number
    const unsigned a = bits & 0x7fff, exponent = a >> m, mantissa = a & ((1u << m) - 1);
    const double magnitude =
        exponent ? std::ldexp(double(mantissa + (1u << m)), int(exponent) - bias() - m)
                 : std::ldexp(double(mantissa), 1 - bias() - m);
    return bits & 0x8000 ? -magnitude : magnitude;
  }

  unsigned nearest(double d) const {
    if (d != d) return 0x7fff;
    const unsigned sign = std::signbit(d) ? 0x8000 : 0;
    const double a = std::fabs(d);
    // Infinity rounds like the number that would follow the largest: its bits read as one.
    unsigned low = 0, high = infinity();
    if (a >= value(high)) return sign | high;
    while (high - low > 1) {
      const unsigned middle = (low + high) / 2;
      (value(middle) <= a ? low : high) = middle;
    }
    const double below = a - value(low), above = value(high) - a;  // exact
    return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
  }
};
constexpr Format half_format = {5, 10}, bfloat16_format = {8, 7};

template <class F>
void check_widening(const Format& format, const char* name, F widen) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float f = widen((unsigned short)(bits));
    const unsigned a = bits & 0x7fff;
    if (a > format.infinity()) {
      expect(f != f, name, bits);
    } else if (a == format.infinity()) {
      expect(std::isinf(f) && std::signbit(f) == bool(bits & 0x8000), name, bits);
    } else {
      const double expected = format.value(bits);
      expect(double(f) == expected && std::signbit(f) == std::signbit(expected), name, bits);
    }
  }
}

// Each number, the middle between it and the next, and what lies next to both, as floats and
// doubles.
std::vector<double> near_ties(const Format& format) {
  std::vector<double> list = {NAN,    -NAN,   INFINITY, -INFINITY,   1e300,
                              -1e300, 1e-300, 5e-324,   3.4028235e38};
  for (unsigned bits = 0; bits < format.infinity(); ++bits) {
    const double v = format.value(bits), middle = (v + format.value(bits + 1)) / 2;
    for (const double c : {v, middle}) {
      const float f = float(c);
      for (const double d :
           {c, std::nextafter(c, INFINITY), std::nextafter(c, -INFINITY),
            double(std::nextafter(f, INFINITY)), double(std::nextafter(f, -INFINITY))}) {
        list.push_back(d);
        list.push_back(-d);
      }
    }
  }
  return list;
}

std::vector<double> random_floats() {
  std::mt19937 random(1);
  std::vector<double> list;
  for (int i = 0; i < 1000000; ++i) {
    const unsigned bits = random();
    float f;
    std::memcpy(&f, &bits, sizeof(f));
    list.push_back(f);
  }
  return list;
}

template <class F, class D>
void check_rounding(const Format& format, const char* name, F from_float, D from_double) {
  for (const std::vector<double>& list : {near_ties(format), random_floats()}) {
    for (const double d : list) {
      expect(from_double(d) == format.nearest(d), name, d);
      const float f = float(d);
      expect(from_float(f) == format.nearest(double(f)), name, double(f));
    }
  }
}

}  // namespace

int main() {
  check_widening(half_format, "half to float",
                 [](unsigned short h) { return __half2float(__ushort_as_half(h)); });
  check_widening(bfloat16_format, "bfloat16 to float",
                 [](unsigned short h) { return __bfloat162float(__ushort_as_bfloat16(h)); });
  check_rounding(
      half_format, "to half", [](float f) { return __half_as_ushort(__float2half_rn(f)); },
      [](double d) { return __half_as_ushort(__double2half(d)); });
  check_rounding(
      bfloat16_format, "to bfloat16",
      [](float f) { return __bfloat16_as_ushort(__float2bfloat16_rn(f)); },
      [](double d) { return __bfloat16_as_ushort(__double2bfloat16(d)); });
  std::printf("%d failures\n", failures);
  return failures != 0;
}
