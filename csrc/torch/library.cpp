// Every op of torch.ops.cgsv_ext: the table of contents. The backends fill it in (cpu.cpp, cuda.cpp).
//
// `updates` and `parameters` are one (N, D) tensor, as a list of length one, or N tensors of D
// elements. `sizes` and `segments` are the lengths of consecutive parts of the D columns; without
// segments, per-agent results have the shape (N,), with them (N, S).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(cgsv_ext, m) {
  m.def("norms(Tensor[] updates) -> Tensor");
  m.def("partial_norms(Tensor[] updates) -> Tensor");
  m.def("pack_row_(Tensor(a!) row, Tensor[] parts) -> Tensor");
  m.def(
      "aggregate(Tensor[] updates, Tensor weights, float gamma, Tensor? norms) -> "
      "(Tensor aggregate, Tensor cosines, Tensor norms)");
  m.def(
      "partial_aggregate(Tensor[] updates, Tensor weights, float gamma, Tensor norms) -> "
      "(Tensor aggregate, Tensor dots)");
  m.def("partial_dots(Tensor[] updates, Tensor aggregate) -> Tensor");
  m.def(
      "update_importance(Tensor importance, Tensor cosines, float alpha, float? floor) -> Tensor");
  m.def("quotas(Tensor importance, SymInt[] sizes, float beta) -> Tensor");
  m.def(
      "select(Tensor aggregate, Tensor quotas, SymInt[]? segments) -> "
      "(Tensor magnitude, Tensor last_index)");
  m.def(
      "histogram(Tensor aggregate, Tensor prefixes, int shift, int bits, SymInt[]? segments) -> "
      "Tensor");
  m.def(
      "download(Tensor aggregate, Tensor magnitude, Tensor last_index, SymInt[]? segments, "
      "Tensor(a!) out) -> ()");
  m.def(
      "download_(Tensor(a!)[] parameters, Tensor aggregate, Tensor magnitude, Tensor last_index, "
      "SymInt[]? segments, float scale) -> ()");
  m.def(
      "reward_step(Tensor[] updates, Tensor importance, float gamma, float alpha, float beta, "
      "float? floor, Tensor? weights, Tensor? norms, SymInt[]? segments, Tensor(a!)? out) -> "
      "(Tensor importance, Tensor cosines, Tensor quotas, Tensor aggregate, Tensor magnitude, "
      "Tensor last_index, Tensor norms, Tensor valid)");
  m.def("gram(Tensor[] updates) -> Tensor");
}
