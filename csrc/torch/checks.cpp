#include "checks.h"

#include <algorithm>
#include <sstream>

#include "../core/key.h"

namespace cgsv::binding {

std::string text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string text(const Sizes& sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) {
    out += (i ? ", " : "") + std::to_string(sizes[i]);
  }
  return out + "]";
}

std::string shape_of(const Tensor& t) {
  const auto sizes = t.sizes();
  std::string out = "(";
  for (size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + (sizes.size() == 1 ? ",)" : ")");
}

std::string dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float:
      return "float32";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    case ScalarType::Bool:
      return "bool";
    default:
      return "dtype number " + std::to_string(int(dtype));
  }
}

std::string device_of(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  return (t.is_cuda() ? "cuda:" : "device ") + std::to_string(t.get_device_index());
}

std::optional<DType> floating_dtype(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return DType::f64;
    case ScalarType::Float:
      return DType::f32;
    case ScalarType::BFloat16:
      return DType::bf16;
    case ScalarType::Half:
      return DType::f16;
    default:
      return std::nullopt;
  }
}

void Checks::on_device(const char* name, const Tensor& t) const {
  const std::string device = device_of(t);
  if (device != device_) fail(std::string(name) + " on " + device_, "one on " + device);
}

DType Checks::floating(const char* name, const Tensor& t) const {
  const auto dtype = floating_dtype(t.scalar_type());
  if (!dtype) {
    fail(std::string(name) + " of float64, float32, bfloat16 or float16",
         dtype_name(t.scalar_type()));
  }
  return *dtype;
}

DType Checks::aggregate(const Tensor& t) const {
  on_device("aggregate", t);
  const DType dtype = floating("aggregate", t);
  if (dtype != DType::f32 && dtype != DType::f64) {
    fail("aggregate of float32 or float64", dtype_name(t.scalar_type()));
  }
  if (t.dim() != 1 || t.numel() == 0) fail("aggregate of shape (D,), D ≥ 1", shape_of(t));
  if (!t.is_contiguous()) {
    fail("a contiguous aggregate", "stride " + std::to_string(t.stride(0)));
  }
  return dtype;
}

void Checks::vector(const char* name, const Tensor& t, int64_t n) const {
  on_device(name, t);
  floating(name, t);
  if (t.dim() != 1 || t.numel() != n) {
    fail(std::string(name) + " of shape (" + std::to_string(n) + ",), one entry per agent",
         shape_of(t));
  }
}

void Checks::per_agent(const char* name, const Tensor& t, const std::optional<Sizes>& segments,
                       ScalarType dtype) const {
  on_device(name, t);
  if (t.scalar_type() != dtype) {
    fail(std::string(name) + " of " + dtype_name(dtype), dtype_name(t.scalar_type()));
  }
  const bool good =
      segments ? t.dim() == 2 && t.size(1) == int64_t(segments->size()) : t.dim() == 1;
  if (!good || t.size(0) == 0) {
    fail(std::string(name) + (segments ? " of shape (N, " + std::to_string(segments->size()) +
                                             "), one column per segment"
                                       : " of shape (N,) without segments="),
         shape_of(t));
  }
}

void Checks::one_per_row(const char* name, const Tensor& t, int64_t n) const {
  if (t.size(0) != n) {
    fail(std::string(name) + " of " + std::to_string(n) + " rows, one per agent", shape_of(t));
  }
}

int64_t Checks::agents(const char* name, const Tensor& t) const {
  on_device(name, t);
  floating(name, t);
  if (t.dim() != 1 || t.numel() == 0) fail(std::string(name) + " of shape (N,)", shape_of(t));
  return t.numel();
}

void Checks::same_dtype(const char* name, const Tensor& t, const Tensor& updates) const {
  if (t.scalar_type() != updates.scalar_type()) {
    fail(std::string(name) + " of the updates' dtype " + dtype_name(updates.scalar_type()),
         dtype_name(t.scalar_type()));
  }
}

void Checks::aggregate_fits(const Tensor& t, const Rows& updates) const {
  const bool wide = aggregate_dtype(updates.dtype) == DType::f64;
  const ScalarType dtype = wide ? ScalarType::Double : ScalarType::Float;
  if (t.scalar_type() != dtype) {
    fail("aggregate of " + dtype_name(dtype) + " for these updates", dtype_name(t.scalar_type()));
  }
  if (t.numel() != updates.d) {
    fail("aggregate of D = " + std::to_string(updates.d) + " elements", std::to_string(t.numel()));
  }
}

void Checks::columns(const char* name, int64_t got, int64_t d) const {
  if (got != d) {
    fail(std::string(name) + " of D = " + std::to_string(d) + " elements an agent",
         std::to_string(got));
  }
}

void Checks::sizes(const Sizes& sizes) const {
  bool good = !sizes.empty();
  for (const int64_t size : sizes) good &= size >= 0;
  if (!good) fail("sizes to be at least one integer ≥ 0", text(sizes));
}

MutableRows Checks::out(const Tensor& t, int64_t n, int64_t d) const {
  on_device("out", t);
  MutableRows rows;
  rows.dtype = floating("out", t);
  if (t.dim() != 2 || t.size(0) != n || t.size(1) != d) {
    fail("out of shape (" + std::to_string(n) + ", " + std::to_string(d) + ")", shape_of(t));
  }
  if (!t.is_contiguous()) fail("out to be contiguous", "strides of another layout");
  rows.n = n;
  rows.d = d;
  rows.row_stride = d;
  rows.base = static_cast<std::byte*>(t.mutable_data_ptr());
  return rows;
}

MutableRows Checks::row(const Tensor& t) const {
  on_device("row", t);
  MutableRows rows;
  rows.dtype = floating("row", t);
  if (t.dim() != 1) fail("row of shape (D,)", shape_of(t));
  if (!t.is_contiguous()) fail("row to be contiguous", "stride " + std::to_string(t.stride(0)));
  rows.n = 1;
  rows.d = t.numel();
  rows.base = static_cast<std::byte*>(t.mutable_data_ptr());
  return rows;
}

std::vector<Part> Checks::parts(const std::vector<Tensor>& tensors, int64_t d) const {
  std::vector<Part> parts;
  parts.reserve(tensors.size());
  int64_t size = 0;
  for (const Tensor& t : tensors) {
    const auto name = [&] { return "parts[" + std::to_string(parts.size()) + "]"; };
    const auto dtype = floating_dtype(t.scalar_type());
    if (!dtype) floating(name().c_str(), t);
    if (device_of(t) != device_) on_device(name().c_str(), t);
    if (!t.is_contiguous()) {
      fail(name() + " to be contiguous", "a strided tensor of shape " + shape_of(t));
    }
    parts.push_back({static_cast<const std::byte*>(t.const_data_ptr()), t.numel(), *dtype});
    size += t.numel();
  }
  if (size != d) {
    fail("parts of D = " + std::to_string(d) + " elements in all", std::to_string(size));
  }
  return parts;
}

void Checks::digit(int64_t shift, int64_t bits, DType dtype) const {
  const int64_t all = dtype == DType::f64 ? KeyOf<double>::bits : KeyOf<float>::bits;
  if (bits < 1 || bits > most_digit_bits) {
    fail("bits to be in [1, " + std::to_string(most_digit_bits) + "]", std::to_string(bits));
  }
  if (shift < 0 || shift > all - bits) {
    fail("shift to be in [0, " + std::to_string(all - bits) + "] for " + std::to_string(bits) +
             " of " + std::to_string(all) + " bits",
         std::to_string(shift));
  }
}

Sizes Checks::segments(const std::optional<Sizes>& given, int64_t d) const {
  if (!given) return {d};
  int64_t left = d;
  for (const int64_t size : *given) {
    if (size < 0 || size > left) {
      left = -1;
      break;
    }
    left -= size;
  }
  if (left != 0) {
    fail("segments that are not negative and sum to D = " + std::to_string(d), text(*given));
  }
  return *given;
}

namespace {

template <class Byte>
Byte* data_of(const Tensor& t) {
  if constexpr (std::is_const_v<Byte>) {
    return static_cast<Byte*>(t.const_data_ptr());
  } else {
    return static_cast<Byte*>(t.mutable_data_ptr());
  }
}

}  // namespace

template <class Byte>
RowList<Byte>::RowList(const Checks& checks, const char* name, const std::vector<Tensor>& tensors) {
  const std::string what(name);
  if (tensors.empty()) checks.fail(what + " of at least one agent", "an empty list");
  const Tensor& first = tensors[0];
  rows_.dtype = checks.floating(name, first);
  checks.on_device(name, first);

  if (tensors.size() == 1) {
    if (first.dim() != 2 || first.numel() == 0) {
      checks.fail(what + " of shape (N, D), N ≥ 1 and D ≥ 1", shape_of(first));
    }
    rows_.n = first.size(0);
    rows_.d = first.size(1);
    rows_.row_stride = first.stride(0);
    if (rows_.d > 1 && first.stride(1) != 1) {
      checks.fail(what + " with unit stride along D (call .contiguous())",
                  "stride " + std::to_string(first.stride(1)));
    }
    rows_.base = data_of<Byte>(first);
    return;
  }

  rows_.n = int64_t(tensors.size());
  rows_.d = first.numel();
  if (rows_.d == 0) checks.fail(what + " of D ≥ 1 elements", shape_of(first));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string row = what + "[" + std::to_string(i) + "]";
    const Tensor& t = tensors[i];
    checks.on_device(row.c_str(), t);
    if (t.scalar_type() != first.scalar_type()) {
      checks.fail(row + " of " + dtype_name(first.scalar_type()) + " like " + what + "[0]",
                  dtype_name(t.scalar_type()));
    }
    if (t.numel() != rows_.d) {
      checks.fail(row + " of " + std::to_string(rows_.d) + " elements like " + what + "[0]",
                  std::to_string(t.numel()));
    }
    if (!t.is_contiguous()) {
      checks.fail(row + " to be contiguous", "a strided tensor of shape " + shape_of(t));
    }
    pointers_.push_back(data_of<Byte>(t));
  }
}

template class RowList<const std::byte>;
template class RowList<std::byte>;

void Overlap::reads(const char* name, const Tensor& t) {
  // Up to the last element that the strides reach.
  int64_t last = 0;
  for (int64_t k = 0; k < t.dim(); ++k) {
    if (t.size(k) == 0) return;
    last += (t.size(k) - 1) * t.stride(k);
  }
  const auto begin = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  ranges_.push_back({begin, begin + uintptr_t(last + 1) * t.element_size(), name, false});
}

void Overlap::writes(const char* name, const Tensor& t) {
  const size_t before = ranges_.size();
  reads(name, t);
  if (ranges_.size() > before) ranges_.back().written = true;
}

template <class Byte>
void Overlap::add_rows(const char* name, const RowsOf<Byte>& rows, bool written) {
  for (int64_t i = 0; i < rows.n; ++i) {
    const auto begin = reinterpret_cast<uintptr_t>(rows.row(i));
    ranges_.push_back({begin, begin + uintptr_t(rows.d * size_of(rows.dtype)), name, written});
  }
}
void Overlap::reads(const char* name, const Rows& rows) { add_rows(name, rows, false); }
void Overlap::writes(const char* name, const MutableRows& rows) { add_rows(name, rows, true); }

void Overlap::check() const {
  std::vector<Range> sorted = ranges_;
  std::sort(sorted.begin(), sorted.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  // The range reaching furthest so far, of all and of those written.
  const Range *any = nullptr, *written = nullptr;
  for (const Range& range : sorted) {
    const Range* before = range.written ? any : written;
    if (before && before->end > range.begin) {
      const Range& out = range.written ? range : *before;
      const Range& other = range.written ? *before : range;
      checks_.fail(std::string(out.name) + " to share no memory with " +
                       (out.name == other.name ? "itself" : other.name),
                   "overlapping tensors");
    }
    if (!any || range.end > any->end) any = &range;
    if (range.written && (!written || range.end > written->end)) written = &range;
  }
}

}  // namespace cgsv::binding
