#pragma once

#include <pybind11/pybind11.h>

namespace cgsv::binding {

// Fills the submodule `_C.shapley`.
void bind_shapley(pybind11::module_& m);

}  // namespace cgsv::binding
