// Tensors as the ops make and read them, on any device.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

#include "checks.h"

namespace cgsv::binding {

// A device as the C interface names it.
struct Device {
  int32_t type, index;
};

// What a result, or scratch memory, can be made of.
inline int32_t code_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::Float:
      return aoti_torch_dtype_float32();
    case ScalarType::Long:
      return aoti_torch_dtype_int64();
    case ScalarType::Byte:
      return aoti_torch_dtype_uint8();
    default:
      return aoti_torch_dtype_bool();
  }
}

// Contiguous and uninitialised, of three dimensions at most. Straight from the C interface, at half the price of the dispatched
// torch::stable::empty: a small step feels the eight of these.
inline Tensor new_tensor(Device device, std::initializer_list<int64_t> sizes, ScalarType dtype) {
  int64_t strides[3] = {1, 1, 1};
  for (size_t k = sizes.size(); k-- > 1;) strides[k - 1] = strides[k] * sizes.begin()[k];
  AtenTensorHandle handle;
  if (aoti_torch_empty_strided(int64_t(sizes.size()), sizes.begin(), strides, code_of(dtype),
                               device.type, device.index, &handle) != AOTI_TORCH_SUCCESS) {
    // Torch has logged why; the C interface does not say. The words are those that callers look for.
    const bool cpu = device.type == aoti_torch_device_type_cpu();
    throw std::runtime_error(std::string(cpu ? "CPU" : "CUDA") +
                             " out of memory. Tried to allocate a tensor of shape " +
                             text(Sizes(sizes)) + ".");
  }
  return Tensor(handle);
}

// (n,), or (n, S) with segments.
inline Tensor new_per_agent(Device device, int64_t n, const std::optional<Sizes>& segments,
                            ScalarType dtype) {
  return segments ? new_tensor(device, {n, int64_t(segments->size())}, dtype)
                  : new_tensor(device, {n}, dtype);
}

inline Tensor new_aggregate(Device device, int64_t d, DType updates) {
  const bool wide = aggregate_dtype(updates) == DType::f64;
  return new_tensor(device, {d}, wide ? ScalarType::Double : ScalarType::Float);
}

template <class T>
const T* in(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T = void>
T* out(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// (N,) or (N, S) values row by row: the tensor itself where they lie so.
inline Tensor table(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// A copy-on-write tensor parts from its twin when its data is asked for to be written: before anyone
// compares addresses.
inline void materialize(const Tensor& t) { t.mutable_data_ptr(); }

}  // namespace cgsv::binding
