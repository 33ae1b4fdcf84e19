// CRC-32 with zlib's polynomial: 16 bytes at a time by tables, parts in parallel.
//
// The checksum of two texts one after the other follows from theirs: appending n zero bytes multiplies by
// x^8n modulo the polynomial. So parts are summed apart, and that of a prefix comes with that of the whole.
#include <array>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../wire.h"
#include "parallel.h"

namespace cgsv::wire {
namespace {

constexpr uint32_t polynomial = 0xedb88320u;  // lowest coefficient in the highest bit

// tables[k][b]: the checksum of byte b followed by k zero bytes.
constexpr auto tables = [] {
  std::array<std::array<uint32_t, 256>, 16> t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
    t[0][b] = crc;
  }
  for (int k = 1; k < 16; ++k) {
    for (uint32_t b = 0; b < 256; ++b) t[k][b] = t[k - 1][b] >> 8 ^ t[0][t[k - 1][b] & 255];
  }
  return t;
}();

// The register after `bytes` more bytes.
uint32_t by_tables(uint32_t crc, const std::byte* data, int64_t bytes) {
  for (; bytes >= 16; data += 16, bytes -= 16) {
    uint32_t words[4];
    std::memcpy(words, data, 16);
    words[0] ^= crc;
    crc = 0;
    for (int k = 0; k < 16; ++k) crc ^= tables[15 - k][words[k / 4] >> (k % 4 * 8) & 255];
  }
  for (; bytes > 0; ++data, --bytes) crc = crc >> 8 ^ tables[0][(crc ^ uint32_t(*data)) & 255];
  return crc;
}

#if defined(__x86_64__)
// Moves a polynomial of 128 bits on by the distance that the constants stand for, and adds the next.
__attribute__((target("pclmul,sse4.1"))) inline __m128i folded(__m128i x, __m128i constants,
                                                               const std::byte* next) {
  const __m128i low = _mm_clmulepi64_si128(x, constants, 0x00);
  const __m128i high = _mm_clmulepi64_si128(x, constants, 0x11);
  const __m128i more = _mm_loadu_si128(reinterpret_cast<const __m128i*>(next));
  return _mm_xor_si128(_mm_xor_si128(low, high), more);
}

// Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009):
// four polynomials of 128 bits move on by 512 bits at a time without changing the remainder, then into one.
// What it leaves, 16 bytes with that remainder, goes through the tables.
__attribute__((target("pclmul,sse4.1"))) uint32_t by_products(uint32_t crc, const std::byte* data,
                                                              int64_t bytes) {
  if (bytes < 128) return by_tables(crc, data, bytes);
  // x^(n + 32) and x^(n − 32) modulo the polynomial for n = 512 and 128, bits reversed.
  const __m128i by_512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
  const __m128i by_128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
  __m128i x[4];
  std::memcpy(x, data, 64);
  x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128(int(crc)));
  for (data += 64, bytes -= 64; bytes >= 64; data += 64, bytes -= 64) {
    for (int k = 0; k < 4; ++k) x[k] = folded(x[k], by_512, data + 16 * k);
  }
  std::byte rest[64];
  std::memcpy(rest, x, 64);
  for (int k = 1; k < 4; ++k) x[0] = folded(x[0], by_128, rest + 16 * k);
  for (; bytes >= 16; data += 16, bytes -= 16) x[0] = folded(x[0], by_128, data);
  std::memcpy(rest, x, 16);
  return by_tables(by_tables(0, rest, 16), data, bytes);
}
#endif

// Of one part.
uint32_t crc32_of(const std::byte* data, int64_t bytes) {
#if defined(__x86_64__)
  static const bool has_products =
      std::strcmp(cpu::isa(), "baseline") != 0 && __builtin_cpu_supports("pclmul");
  if (has_products) return ~by_products(~0u, data, bytes);
#endif
  return ~by_tables(~0u, data, bytes);
}

// a · b modulo the polynomial.
uint32_t product(uint32_t a, uint32_t b) {
  uint32_t sum = 0;
  for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
    if (a & bit) sum ^= b;
    b = b >> 1 ^ (b & 1 ? polynomial : 0);
  }
  return sum;
}

// x^8n modulo the polynomial.
uint32_t shift_by(int64_t bytes) {
  uint32_t power = 1u << 23, result = 1u << 31;  // x^8 and 1
  for (; bytes; bytes >>= 1) {
    if (bytes & 1) result = product(power, result);
    power = product(power, power);
  }
  return result;
}

}  // namespace

uint32_t crc32_joined(uint32_t first, uint32_t second, int64_t second_bytes) {
  return product(shift_by(second_bytes), first) ^ second;
}

uint32_t crc32(const std::byte* data, int64_t bytes, const Threads& threads) {
  const cpu::Chunks chunks(bytes, 1 << 16);
  if (chunks.count <= 1) return crc32_of(data, bytes);
  std::vector<uint32_t> parts(chunks.count);
  cpu::for_each(
      threads, cpu::slots_for(threads, chunks.count, bytes), chunks.count,
      [&](int64_t c, int) { parts[c] = crc32_of(data + chunks.begin(c), chunks.size(c)); });
  const uint32_t shift = shift_by(chunks.columns);
  uint32_t crc = parts[0];
  for (int64_t c = 1; c + 1 < chunks.count; ++c) crc = product(shift, crc) ^ parts[c];
  return crc32_joined(crc, parts.back(), chunks.size(chunks.count - 1));
}

}  // namespace cgsv::wire
