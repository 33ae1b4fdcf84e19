// The ops on a GPU: on the device of the tensors and its current stream, without waiting for either.
//
// With CGSV_SIMT the kernels are compiled for the CPU (csrc/test/simt) and are what CPU tensors get.
#include <cuda_runtime_api.h>

#include <exception>

#include "../core/cgsv_cuda.h"
#include "ops.h"

#ifdef CGSV_SIMT
#include <cstring>
#else
#include <torch/csrc/stable/accelerator.h>
#endif

namespace cgsv::binding {
namespace {

#ifdef CGSV_SIMT

#define CGSV_KEY CPU

struct Guard {
  explicit Guard(int32_t) {}
};
Device device_of_call(const Tensor&) { return {aoti_torch_device_type_cpu(), 0}; }
cudaStream_t current_stream(Device) { return nullptr; }

// As aligned as a GPU's allocator aligns, and full of what a kernel must not rely on.
void* scratch_in(const Tensor& t) {
  std::memset(t.mutable_data_ptr(), 0xa5, size_t(t.numel()));
  const auto address = reinterpret_cast<uintptr_t>(t.mutable_data_ptr());
  return reinterpret_cast<void*>((address + 255) / 256 * 256);
}
constexpr int64_t scratch_slack = 255;

#else

#define CGSV_KEY CUDA

using Guard = torch::stable::accelerator::DeviceGuard;

Device device_of_call(const Tensor& t) {
  return {aoti_torch_device_type_cuda(), t.get_device_index()};
}
cudaStream_t current_stream(Device device) {
  void* stream;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device.index, &stream));
  return static_cast<cudaStream_t>(stream);
}
void* scratch_in(const Tensor& t) { return t.mutable_data_ptr(); }
constexpr int64_t scratch_slack = 0;

#endif

class Cuda {
 public:
  using Vector = cuda::Values;
  using RewardStep = cuda::RewardStep;

  Cuda(const Checks& checks, const Tensor& like)
      : checks_(checks), device_(device_of_call(like)), guard_(device_.index) {
    stream_.handle = current_stream(device_);
    stream_.allocate = [](int64_t bytes, void* self) {
      return static_cast<Cuda*>(self)->allocate(bytes);
    };
    stream_.context = this;
  }
  Cuda(const Cuda&) = delete;

  Device device() const { return device_; }

  static Vector vector(const Tensor& t) {
    return {t.const_data_ptr(), floating_dtype(t.scalar_type()).value(), t.stride(0)};
  }

  void norms(const Rows& updates, double* norms) { check(cuda::norms(updates, norms, stream_)); }

  void partial_norms(const Rows& updates, double* squares) {
    check(cuda::partial_norms(updates, squares, stream_));
  }

  void pack_row(const PartList& parts, const MutableRows& row, double* norm) {
    check(cuda::pack_row(parts, row, norm, stream_));
  }

  void aggregate(const Rows& updates, const Vector& weights, const Vector* given_norms,
                 double gamma, void* aggregate, double* cosines, double* norms) {
    check(
        cuda::aggregate(updates, weights, given_norms, gamma, aggregate, cosines, norms, stream_));
  }

  void partial_aggregate(const Rows& updates, const Vector& weights, const Vector& norms,
                         double gamma, void* aggregate, double* dots) {
    check(cuda::partial_aggregate(updates, weights, norms, gamma, aggregate, dots, stream_));
  }

  void partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots) {
    check(cuda::partial_dots(updates, aggregate, dots, stream_));
  }

  void update_importance(int64_t n, const Vector& importance, const Vector& cosines, double alpha,
                         double floor, double* result) {
    check(cuda::update_importance(n, importance, cosines, alpha, floor, result, stream_));
  }

  void quotas(int64_t n, const Vector& importance, const Segments& segments, double beta,
              int64_t* quotas) {
    check(cuda::quotas(n, importance, segments, beta, quotas, stream_));
  }

  void select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
              const Segments& segments, void* magnitude, int64_t* last_index) {
    check(cuda::select(aggregate, n, quotas, segments, magnitude, last_index, stream_));
  }

  void histogram(const Aggregate& aggregate, const Prefixes& prefixes, const Segments& segments,
                 int64_t* counts) {
    check(cuda::histogram(aggregate, prefixes, segments, counts, stream_));
  }

  void download(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
                const MutableRows& rewards) {
    check(cuda::download(aggregate, selection, segments, rewards, stream_));
  }

  void download_(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
                 double scale, const MutableRows& parameters) {
    check(cuda::download_(aggregate, selection, segments, scale, parameters, stream_));
  }

  void reward_step(RewardStep& step, const Vector& importance, const Vector* weights,
                   const Vector* norms) {
    step.importance = importance;
    step.weights = weights;
    step.given_norms = norms;
    check(cuda::reward_step(step, stream_));
  }

  void gram(const Rows& updates, double* gram) { check(cuda::gram(updates, gram, stream_)); }

 private:
  // From torch's caching allocator. Memory given back goes to work enqueued later on this stream, so
  // it may be given back as soon as the call has enqueued its own.
  void* allocate(int64_t bytes) {
    try {
      scratch_.push_back(new_tensor(device_, {bytes + scratch_slack}, ScalarType::Byte));
    } catch (...) {
      failure_ = std::current_exception();
      return nullptr;
    }
    return scratch_in(scratch_.back());
  }

  void check(cudaError_t error) const {
    if (failure_) std::rethrow_exception(failure_);
    if (error == cudaSuccess) return;
    cudaGetLastError();  // or torch blames its next kernel for it
    throw std::runtime_error(std::string(checks_.op()) +
                             "(): CUDA error: " + cudaGetErrorString(error));
  }

  const Checks& checks_;
  const Device device_;
  const Guard guard_;
  cuda::Stream stream_;
  std::vector<Tensor> scratch_;
  std::exception_ptr failure_;  // of the allocator
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cgsv_ext, CGSV_KEY, m) { implement<Cuda>(m); }

}  // namespace cgsv::binding
