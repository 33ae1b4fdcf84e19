// The wire as docs/wire.md has it, an entry at a time: what the tests hold the core's against.
#pragma once

#include <optional>

#include "support.h"

namespace test::plain {

using Bytes = std::vector<uint8_t>;

inline uint32_t crc32(const uint8_t* data, size_t bytes, uint32_t crc = 0) {
  crc = ~crc;
  for (size_t k = 0; k < bytes; ++k) {
    crc ^= data[k];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

inline void put(Bytes& to, uint64_t value, int bytes) {
  for (int k = 0; k < bytes; ++k) to.push_back(uint8_t(value >> (8 * k)));
}
inline uint64_t get(const Bytes& from, size_t at, int bytes) {
  uint64_t value = 0;
  for (int k = 0; k < bytes; ++k) value |= uint64_t(from[at + size_t(k)]) << (8 * k);
  return value;
}

// Makes the length and the checksum right again.
inline void repair(Bytes& message) {
  if (message.size() < 48) return;
  const uint64_t body = message.size() - 48;
  for (size_t k = 0; k < 8; ++k) message[36 + k] = uint8_t(body >> (8 * k));
  const uint32_t crc = crc32(&message[0] + 48, body, crc32(message.data(), 44));
  for (size_t k = 0; k < 4; ++k) message[44 + k] = uint8_t(crc >> (8 * k));
}

// The message of an agent whose level adds the entries with level[j] = 0, 1, … (those of no level have a
// larger one). bits: the values, 0 for +0.
inline Bytes encode(const std::vector<uint32_t>& bits, const std::vector<int>& level, int levels,
                    int value_bytes, int64_t round, int64_t since) {
  const size_t d = bits.size();
  std::vector<bool> open(d, true);
  Bytes body;
  int blocks = 0;
  for (int g = 0; g < levels; ++g) {
    std::vector<size_t> added, left;
    size_t nonzero_left = 0;
    for (size_t j = 0; j < d; ++j) {
      if (!open[j]) continue;
      left.push_back(j);
      if (bits[j] != 0 && level[j] == g) added.push_back(j);
      if (bits[j] != 0 && level[j] != g) ++nonzero_left;
    }
    if (added.empty()) continue;
    const auto padded = [](size_t bytes) { return (bytes + 7) / 8 * 8; };
    const size_t values = added.size() * size_t(value_bytes);
    const size_t index = padded(added.size() * 4 + values);
    const size_t bitmap = padded((left.size() + 63) / 64 * 8 + values);
    const size_t rest = nonzero_left ? ~size_t(0) : padded(left.size() * size_t(value_bytes));
    const int kind = rest <= std::min(index, bitmap) ? 3 : bitmap <= index ? 2 : 1;
    const std::vector<size_t>& held = kind == 3 ? left : added;
    put(body, uint64_t(kind), 8);
    put(body, held.size(), 8);
    if (kind == 1) {
      for (size_t j : added) put(body, j, 4);
    } else if (kind == 2) {
      Bytes map((left.size() + 63) / 64 * 8);
      for (size_t k = 0; k < left.size(); ++k) {
        if (bits[left[k]] != 0 && level[left[k]] == g) map[k / 8] |= uint8_t(1 << k % 8);
      }
      body.insert(body.end(), map.begin(), map.end());
    }
    for (size_t j : held) put(body, bits[j], value_bytes);
    while (body.size() % 8) body.push_back(0);
    for (size_t j : held) open[j] = false;
    ++blocks;
  }
  Bytes message = {'C', 'G', 'S', 'V', 1, uint8_t(value_bytes == 2), 0, 0};
  put(message, uint64_t(blocks), 4);
  put(message, d, 8);
  put(message, uint64_t(round), 8);
  put(message, uint64_t(since), 8);
  message.resize(48);
  message.insert(message.end(), body.begin(), body.end());
  repair(message);
  return message;
}

// The elements' bits in float32, or nothing where the message is not good.
inline std::optional<std::vector<uint32_t>> decode(const Bytes& m, uint64_t limit) {
  if (m.size() < 48 || std::memcmp(m.data(), "CGSV", 4) != 0 || m[4] != 1 || m[5] > 1) return {};
  const int value_bytes = m[5] ? 2 : 4;
  const uint64_t blocks = get(m, 8, 4), d = get(m, 12, 8);
  const auto round = int64_t(get(m, 20, 8)), since = int64_t(get(m, 28, 8));
  if (get(m, 6, 2) != 0 || since < 0 || since > round || get(m, 36, 8) != m.size() - 48) return {};
  if (crc32(m.data() + 48, m.size() - 48, crc32(m.data(), 44)) != get(m, 44, 4)) return {};
  if (d > limit || blocks > 65536) return {};
  std::vector<uint32_t> elements(d);
  std::vector<bool> open(d, true);
  size_t at = 48;
  for (uint64_t b = 0; b < blocks; ++b) {
    if (m.size() - at < 16) return {};
    const uint64_t kind = get(m, at, 8), count = get(m, at + 8, 8);
    at += 16;
    std::vector<size_t> left, held;
    for (size_t j = 0; j < d; ++j) {
      if (open[j]) left.push_back(j);
    }
    if (kind < 1 || kind > 3 || count == 0 || count > left.size()) return {};
    const size_t map = (left.size() + 63) / 64 * 8;
    const size_t places = kind == 1 ? 4 * count : kind == 2 ? map : 0;
    if (m.size() - at < (places + count * size_t(value_bytes) + 7) / 8 * 8) return {};
    if (kind == 1) {
      for (size_t k = 0; k < count; ++k) {
        const size_t j = get(m, at + 4 * k, 4);
        if (j >= d || !open[j] || (k > 0 && j <= held.back())) return {};
        held.push_back(j);
      }
    } else if (kind == 2) {
      for (size_t k = 0; k < map * 8; ++k) {
        if (!(m[at + k / 8] >> k % 8 & 1)) continue;
        if (k >= left.size()) return {};
        held.push_back(left[k]);
      }
    } else {
      held = left;
    }
    if (held.size() != count) return {};
    at += places;
    for (size_t j : held) {
      elements[j] = uint32_t(get(m, at, value_bytes) << (value_bytes == 2 ? 16 : 0));
      open[j] = false;
      at += size_t(value_bytes);
    }
    for (; at % 8; ++at) {
      if (m[at] != 0) return {};
    }
  }
  if (at != m.size()) return {};
  return elements;
}

}  // namespace test::plain
