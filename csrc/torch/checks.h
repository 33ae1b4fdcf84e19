// What every op may assume of its arguments, and what it says when it may not.
//
// An error is a std::invalid_argument, which Python sees as a ValueError; it reads
// `op(): expected <what>, got <what>` and is raised before anything is written.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../core/cgsv.h"

namespace cgsv::binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

std::string shape_of(const Tensor& t);
std::string dtype_name(ScalarType dtype);
std::string device_of(const Tensor& t);
std::optional<DType> floating_dtype(ScalarType dtype);  // none of any other
std::string text(double value);
std::string text(const Sizes& sizes);

// The checks of one call of one op; all of its tensors are on the device of the first.
class Checks {
 public:
  Checks(const char* op, const std::vector<Tensor>& tensors)
      : op_(op), device_(tensors.empty() ? "cpu" : device_of(tensors[0])) {}

  const char* op() const { return op_; }
  [[noreturn]] void fail(const std::string& expected, const std::string& got) const {
    throw std::invalid_argument(std::string(op_) + "(): expected " + expected + ", got " + got);
  }

  void on_device(const char* name, const Tensor& t) const;
  // One of the four floating dtypes.
  DType floating(const char* name, const Tensor& t) const;
  // A contiguous vector of float32 or float64.
  DType aggregate(const Tensor& t) const;
  // A vector of n floating-point values.
  void vector(const char* name, const Tensor& t, int64_t n) const;
  // (n,), or (n, S) with segments.
  void per_agent(const char* name, const Tensor& t, const std::optional<Sizes>& segments,
                 ScalarType dtype) const;
  void one_per_row(const char* name, const Tensor& t, int64_t n) const;
  // The number of agents, from a vector of any length but 0.
  int64_t agents(const char* name, const Tensor& t) const;
  void same_dtype(const char* name, const Tensor& t, const Tensor& updates) const;
  // As one of these updates.
  void aggregate_fits(const Tensor& t, const Rows& updates) const;
  void columns(const char* name, int64_t got, int64_t d) const;
  // Bits of a key of this dtype.
  void digit(int64_t shift, int64_t bits, DType dtype) const;
  // The segments, or the whole of d.
  Sizes segments(const std::optional<Sizes>& given, int64_t d) const;
  void sizes(const Sizes& sizes) const;
  // A contiguous (n, d) tensor to write to.
  MutableRows out(const Tensor& t, int64_t n, int64_t d) const;
  // A contiguous vector of any length to write to.
  MutableRows row(const Tensor& t) const;
  // Contiguous tensors of d elements in all, of any floating dtypes.
  std::vector<Part> parts(const std::vector<Tensor>& tensors, int64_t d) const;

  void gamma(double value) const {
    scalar("gamma", value, std::isfinite(value) && value > 0, "finite and > 0");
  }
  void alpha(double value) const { scalar("alpha", value, value >= 0 && value <= 1, "in [0, 1]"); }
  void beta(double value) const { scalar("beta", value, value > 0, "> 0 (inf is allowed)"); }
  void scale(double value) const { scalar("scale", value, std::isfinite(value), "finite"); }
  void floor(std::optional<double> value) const {
    if (value)
      scalar("floor", *value, std::isfinite(*value) && *value >= 0, "None or finite and ≥ 0");
  }

 private:
  void scalar(const char* name, double value, bool good, const char* expected) const {
    if (!good) fail(std::string(name) + " to be " + expected, text(value));
  }

  const char* op_;
  std::string device_;
};

// N rows of D elements found in a list of tensors, checked; owns the table of row pointers.
template <class Byte>
class RowList {
 public:
  RowList(const Checks& checks, const char* name, const std::vector<Tensor>& tensors);
  int64_t n() const { return rows_.n; }
  RowsOf<Byte> rows() const {
    RowsOf<Byte> rows = rows_;
    if (!pointers_.empty()) rows.pointers = pointers_.data();
    return rows;
  }

 private:
  RowsOf<Byte> rows_;
  std::vector<Byte*> pointers_;
};

// Memory ranges that a call reads and writes, to refuse those that overlap.
class Overlap {
 public:
  explicit Overlap(const Checks& checks) : checks_(checks) {}
  void reads(const char* name, const Tensor& t);
  void reads(const char* name, const Rows& rows);
  void writes(const char* name, const Tensor& t);
  void writes(const char* name, const MutableRows& rows);
  void check() const;

 private:
  struct Range {
    uintptr_t begin, end;
    const char* name;
    bool written;
  };
  template <class Byte>
  void add_rows(const char* name, const RowsOf<Byte>& rows, bool written);
  const Checks& checks_;
  std::vector<Range> ranges_;
};

}  // namespace cgsv::binding
