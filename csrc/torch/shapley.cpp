// The game of coalitions for cgsv_ext/shapley.py, which has checked the arguments: numpy arrays in and out.
// Host work without a device's twin, so functions of the Python module and no ops.
#include "../core/shapley.h"

#include <pybind11/numpy.h>

#include "shapley_module.h"
#include "threads.h"

namespace py = pybind11;

namespace cgsv::binding {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

shapley::Game game_of(const Array<double>& gram, const Array<double>& weights) {
  return shapley::Game(weights.shape(0), gram.data(), weights.data());
}

Array<double> approximate(const Array<double>& gram, const Array<double>& weights) {
  const shapley::Game game = game_of(gram, weights);
  return Array<double>(game.n, game.cosines.data());
}

Array<double> value(const Array<double>& gram, const Array<double>& weights,
                    const Array<bool>& members) {
  const shapley::Game game = game_of(gram, weights);
  const int64_t count = members.shape(0);
  Array<double> values(count);
  const bool* const in = members.data();
  double* const out = values.mutable_data();
  py::gil_scoped_release release;
  shapley::value(game, in, count, out, torch_threads());
  return values;
}

// permutations: (groups, size, n). Returns the groups' mean and the sum of squared distances from it.
py::tuple sampled(const Array<double>& gram, const Array<double>& weights,
                  const Array<int64_t>& permutations) {
  const shapley::Game game = game_of(gram, weights);
  const int64_t groups = permutations.shape(0), size = permutations.shape(1);
  Array<double> mean(game.n), squares(game.n);
  const int64_t* const in = permutations.data();
  double *const to_mean = mean.mutable_data(), *const to_squares = squares.mutable_data();
  {
    py::gil_scoped_release release;
    shapley::sampled(game, in, groups, size, to_mean, to_squares, torch_threads());
  }
  return py::make_tuple(mean, squares);
}

// Between reports the signals that came in are looked at, so that Ctrl-C stops a long enumeration.
Array<double> exact(const Array<double>& gram, const Array<double>& weights, bool banzhaf,
                    const py::object& report) {
  const shapley::Game game = game_of(gram, weights);
  Array<double> values(game.n);
  double* const out = values.mutable_data();
  const auto kind = banzhaf ? shapley::Semivalue::banzhaf : shapley::Semivalue::shapley;
  shapley::Progress progress;
  progress.context = const_cast<py::object*>(&report);
  progress.report = [](int64_t done, int64_t total, void* context) {
    const py::gil_scoped_acquire acquire;
    const py::object& report = *static_cast<const py::object*>(context);
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!report.is_none()) report(done, total);
  };
  py::gil_scoped_release release;
  shapley::exact(game, kind, out, torch_threads(), progress);
  return values;
}

}  // namespace

void bind_shapley(py::module_& m) {
  m.def("approximate", &approximate);
  m.def("value", &value);
  m.def("sampled", &sampled);
  m.def("exact", &exact);
  m.attr("most_agents") = shapley::most_agents;
}

}  // namespace cgsv::binding
