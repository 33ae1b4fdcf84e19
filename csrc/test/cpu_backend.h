// The CPU core under test: on every instruction set, and however the host offers its threads.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <sstream>
#include <thread>

#include "support.h"

namespace test {

constexpr bool simulated = false;

// Every legal way to call the body: all at once, a thread a piece, pieces of odd sizes in odd order.
using Way = Threads;

inline Way serial(int count = 1) {
  Threads threads;
  threads.count = count;
  return threads;
}

inline Way parallel(int count) {
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

inline Way odd_pieces(int count) {
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

inline Way one_way() { return serial(); }
inline std::vector<Way> two_ways() { return {serial(), parallel(5)}; }
inline std::vector<Way> all_ways() {
  return {serial(), serial(4), parallel(2), parallel(5), odd_pieces(4)};
}

namespace core {

using cpu::download;
using cpu::download_;
using cpu::gram;
using cpu::histogram;
using cpu::norms;
using cpu::pack_row;
using cpu::partial_aggregate;
using cpu::partial_dots;
using cpu::partial_norms;
using cpu::reward_step;
using cpu::select;

// Without given norms they are measured; `found` receives them either way.
inline void aggregate(const Rows& updates, const double* weights, const double* given, double gamma,
                      void* u, double* cosines, double* found, const Way& way) {
  if (given) {
    std::copy(given, given + updates.n, found);
  } else {
    cpu::norms(updates, found, way);
  }
  cpu::aggregate(updates, weights, found, gamma, u, cosines, way);
}

inline void update_importance(int64_t n, const double* importance, const double* cosines,
                              double alpha, double floor, double* result, const Way&) {
  cpu::update_importance(n, importance, cosines, alpha, floor, result);
}
inline void quotas(int64_t n, const double* importance, const Segments& segments, double beta,
                   int64_t* quotas, const Way&) {
  cpu::quotas(n, importance, segments, beta, quotas);
}

}  // namespace core

// Runs the test in a process for each instruction set compiled in and there, and returns how main does.
inline int run_test(void (*run)()) {
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
      where = isa;
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
