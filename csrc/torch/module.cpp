// The Python module: what was built, with what, and what runs. Importing it registers the ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "../core/cgsv.h"
#include "shapley_module.h"
#include "wire_module.h"

namespace py = pybind11;

namespace {

// Words of a list separated by spaces or semicolons.
py::list words(const std::string& text) {
  py::list list;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of(" ;", begin), text.size());
    if (end > begin) list.append(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

py::dict build_info() {
  py::dict info;
  info["version"] = CGSV_VERSION;
  info["torch_built_with"] = CGSV_TORCH_VERSION;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["cxx_standard"] = __cplusplus;
  info["isa"] = cgsv::cpu::isa();
  info["isas_compiled"] = words(cgsv::cpu::compiled_isas());
  info["cuda"] = bool(CGSV_CUDA);
#if CGSV_CUDA
  info["cuda_version"] = CGSV_CUDA_VERSION;
  info["cuda_archs"] = words(CGSV_CUDA_ARCHS);
#else
  info["cuda_version"] = py::none();
  info["cuda_archs"] = py::list();
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled half of cgsv_ext; its ops are torch.ops.cgsv_ext.*.";
  m.def("build_info", &build_info, "How this library was built and what it runs on.");
  py::module_ shapley = m.def_submodule("shapley", "Host work of cgsv_ext.shapley.");
  cgsv::binding::bind_shapley(shapley);
  py::module_ wire = m.def_submodule("wire", "Host work of cgsv_ext.wire.");
  cgsv::binding::bind_wire(wire);
}
