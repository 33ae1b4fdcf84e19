#pragma once

#include <pybind11/pybind11.h>

namespace cgsv::binding {

// Fills the submodule `_C.wire`.
void bind_wire(pybind11::module_& m);

}  // namespace cgsv::binding
