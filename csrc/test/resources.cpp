// What a call takes of the device: scratch memory, and how many blocks a launch may have.
#include "support.h"

namespace test {
namespace {

constexpr int64_t most_scratch = 64'000'000;

// The bytes that a call asks for first, which it does not get.
template <class Call>
int64_t wanted(const Call& call) {
  int64_t bytes = 0;
  cuda::Stream stream;
  stream.context = &bytes;
  stream.allocate = [](int64_t more, void* context) -> void* {
    *static_cast<int64_t*>(context) += more;
    return nullptr;
  };
  CHECK(call(stream) == cudaErrorMemoryAllocation);
  return bytes;
}

// Besides the aggregate, on a GPU of any size, and for as many agents as are promised.
void a_step_takes_little(int64_t n, int64_t d, DType dtype) {
  cuda::RewardStep step = {};
  step.updates.n = n;
  step.updates.d = step.updates.row_stride = d;
  step.updates.dtype = dtype;
  for (int multiprocessors : {1, 30, 132, 192}) {
    simt::set_multiprocessors(multiprocessors);
    const int64_t tables = 16 * n;  // of separate rows
    CHECK(tables + wanted([&](const cuda::Stream& on) { return reward_step(step, on); }) <=
          most_scratch);
  }
}

// The selection's scratch lies where the sums over chunks were: one allocation for all.
void a_selection_finds_room() {
  const int64_t n = 9, d = 5000;
  Updates updates(DType::f32, n, d, Updates::aligned, 3);
  const std::vector<double> ones(n, 1);
  std::vector<double> importance(n), cosines(n), norms(n), u(d / 2 + 2);
  std::vector<int64_t> quotas(n), index(n);
  std::vector<float> magnitude(n);
  cuda::RewardStep step = {};
  step.updates = updates.rows();
  step.importance = core::values(ones.data());
  step.gamma = step.alpha = step.beta = 0.5;
  step.floor = 0;
  step.new_importance = importance.data();
  step.cosines = cosines.data();
  step.quotas = quotas.data();
  step.aggregate = u.data() + reinterpret_cast<uintptr_t>(u.data()) / 8 % 2;
  step.magnitude = magnitude.data();
  step.last_index = index.data();
  step.norms = norms.data();

  struct Counted {
    Scratch scratch;
    int calls = 0;
  } counted;
  cuda::Stream stream;
  stream.context = &counted;
  stream.allocate = [](int64_t bytes, void* context) {
    auto* c = static_cast<Counted*>(context);
    ++c->calls;
    return c->scratch.allocate(bytes);
  };
  simt::set_multiprocessors(1);
  CHECK(reward_step(step, stream) == cudaSuccess);
  CHECK(counted.calls == 1);
}

// More blocks than a launch takes are refused: their number must not wrap around.
void too_many_blocks() {
  const float one = 1;
  double norm = 0, scratch[32];
  cuda::Stream stream;
  stream.context = scratch;
  stream.allocate = [](int64_t, void* context) { return context; };
  Rows rows;
  rows.base = reinterpret_cast<const std::byte*>(&one);
  rows.d = 1;
  for (int64_t n : {(int64_t(1) << 31) + 1, (int64_t(1) << 32) + 1}) {
    rows.n = n;
    CHECK(cuda::norms(rows, &norm, stream) == cudaErrorInvalidConfiguration);
  }
  CHECK(norm == 0);
}

void run() {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int64_t n : {1, 10, 100, 1000, 1500, 2000, 2500, 3000, 4096}) {
      for (int64_t d :
           {int64_t(10'000), int64_t(10'000'000), int64_t(1'000'000'000), int64_t(1) << 33}) {
        a_step_takes_little(n, d, dtype);
      }
    }
  }
  too_many_blocks();
  a_selection_finds_room();
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
