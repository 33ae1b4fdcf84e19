// The CUDA core under test, its kernels compiled for the CPU: in any order of their threads and blocks,
// on any number of multiprocessors. simt/simt.h says what that proves.
#pragma once

#include "../core/cgsv_cuda.h"
#include "simt/simt.h"
#include "support.h"

extern "C" __attribute__((weak)) void __asan_init();

namespace test {

constexpr bool simulated = true;

struct Way {
  simt::Order order;
  unsigned seed;
  int multiprocessors;
};

// Another one each time, the same ones in every run.
inline Way one_way() {
  static unsigned calls = 0;
  constexpr simt::Order orders[] = {simt::Order::random, simt::Order::run_ahead,
                                    simt::Order::reversed};
  constexpr int multiprocessors[] = {132, 7, 2, 3};
  const unsigned seed = calls++;
  return {orders[seed % 3], seed, multiprocessors[seed % 4]};
}
inline std::vector<Way> all_ways() {
  // The sanitizers and the race detector find what they look for in any order, and take their time.
  static const bool once = std::getenv("CGSV_TEST_ONCE") != nullptr;
  if (once) return {one_way()};
  return {{simt::Order::in_order, 0, 1}, one_way(), one_way()};
}
inline std::vector<Way> two_ways() {
  std::vector<Way> ways = all_ways();
  if (ways.size() > 2) ways.pop_back();
  return ways;
}

// The scratch memory of one call: full of NaN before, and nothing written past its ends.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    for (const Piece& piece : pieces_) {
      for (int64_t j = 0; j < guard; ++j) CHECK(piece.data[piece.bytes + j] == filling);
      std::free(piece.data);
    }
  }
  void* allocate(int64_t bytes) {
    void* data = nullptr;
    if (posix_memalign(&data, 256, size_t(bytes + guard)) != 0) return nullptr;
    std::memset(data, filling, size_t(bytes + guard));
    pieces_.push_back({static_cast<unsigned char*>(data), bytes});
    return data;
  }

 private:
  const int64_t guard = __asan_init ? 0 : 64;  // AddressSanitizer has its own
  static constexpr unsigned char filling = 0xff;
  struct Piece {
    unsigned char* data;
    int64_t bytes;
  };
  std::vector<Piece> pieces_;
};

namespace core {

template <class Call>
void run(const Way& way, const Call& call) {
  const char* orders[] = {"in order", "reversed", "random", "run ahead"};
  where = std::string(orders[int(way.order)]) + ", seed " + std::to_string(way.seed) + ", " +
          std::to_string(way.multiprocessors) + " multiprocessors";
  simt::set_schedule(way.seed, way.order);
  simt::set_multiprocessors(way.multiprocessors);
  Scratch scratch;
  cuda::Stream stream;
  stream.context = &scratch;
  stream.allocate = [](int64_t bytes, void* context) {
    return static_cast<Scratch*>(context)->allocate(bytes);
  };
  CHECK(call(stream) == cudaSuccess);
}

inline cuda::Values values(const double* data) { return {data, DType::f64, 1}; }

inline void norms(const Rows& updates, double* norms, const Way& way) {
  run(way, [&](const cuda::Stream& on) { return cuda::norms(updates, norms, on); });
}

inline void partial_norms(const Rows& updates, double* squares, const Way& way) {
  run(way, [&](const cuda::Stream& on) { return cuda::partial_norms(updates, squares, on); });
}

inline void pack_row(const PartList& parts, const MutableRows& row, double* norm, const Way& way) {
  run(way, [&](const cuda::Stream& on) { return cuda::pack_row(parts, row, norm, on); });
}

inline void aggregate(const Rows& updates, const double* weights, const double* given, double gamma,
                      void* u, double* cosines, double* found, const Way& way) {
  const cuda::Values norms = values(given);
  run(way, [&](const cuda::Stream& on) {
    return cuda::aggregate(updates, values(weights), given ? &norms : nullptr, gamma, u, cosines,
                           found, on);
  });
}

inline void partial_aggregate(const Rows& updates, const double* weights, const double* norms,
                              double gamma, void* u, double* dots, const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::partial_aggregate(updates, values(weights), values(norms), gamma, u, dots, on);
  });
}

inline void partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots,
                         const Way& way) {
  run(way,
      [&](const cuda::Stream& on) { return cuda::partial_dots(updates, aggregate, dots, on); });
}

inline void histogram(const Aggregate& aggregate, const Prefixes& prefixes,
                      const Segments& segments, int64_t* counts, const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::histogram(aggregate, prefixes, segments, counts, on);
  });
}

inline void gram(const Rows& updates, double* gram, const Way& way) {
  run(way, [&](const cuda::Stream& on) { return cuda::gram(updates, gram, on); });
}

inline void update_importance(int64_t n, const double* importance, const double* cosines,
                              double alpha, double floor, double* result, const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::update_importance(n, values(importance), values(cosines), alpha, floor, result,
                                   on);
  });
}

inline void quotas(int64_t n, const double* importance, const Segments& segments, double beta,
                   int64_t* quotas, const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::quotas(n, values(importance), segments, beta, quotas, on);
  });
}

inline void select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
                   const Segments& segments, void* magnitude, int64_t* last_index, const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::select(aggregate, n, quotas, segments, magnitude, last_index, on);
  });
}

inline void download(const Aggregate& aggregate, const Selection& selection,
                     const Segments& segments, const MutableRows& rewards, const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::download(aggregate, selection, segments, rewards, on);
  });
}

inline void download_(const Aggregate& aggregate, const Selection& selection,
                      const Segments& segments, double scale, const MutableRows& parameters,
                      const Way& way) {
  run(way, [&](const cuda::Stream& on) {
    return cuda::download_(aggregate, selection, segments, scale, parameters, on);
  });
}

inline void reward_step(const cpu::RewardStep& step, const Way& way) {
  const cuda::Values weights = values(step.weights), norms = values(step.given_norms);
  const cuda::RewardStep on_device = {step, values(step.importance),
                                      step.weights ? &weights : nullptr,
                                      step.given_norms ? &norms : nullptr};
  run(way, [&](const cuda::Stream& on) { return cuda::reward_step(on_device, on); });
}

}  // namespace core

inline int run_test(void (*run)()) {
  run();
  std::printf("%d failures, %llu switches\n", failures, simt::switches());
  return failures != 0;
}

}  // namespace test
