// The Python module d2lkernels._C. Loading it registers the ops (registration.cpp); no op goes through it. It tells
// what only the compiled library knows and holds the run-time switches.
#include <pybind11/pybind11.h>

#include <string>

#include "common/device.h"
#include "kernels/cpu/capability.h"

namespace py = pybind11;
using d2l::cpu::Capability;

namespace {

constexpr Capability kCapabilities[] = {Capability::baseline, Capability::avx2, Capability::avx512};

py::list supported_capabilities() {
  py::list names;
  for (const Capability capability : kCapabilities) {
    if (d2l::cpu::is_supported(capability)) {
      names.append(d2l::cpu::name_of(capability));
    }
  }
  return names;
}

void set_capability(const std::string& name) {
  for (const Capability capability : kCapabilities) {
    if (name == d2l::cpu::name_of(capability)) {
      d2l::cpu::set_capability(capability);
      return;
    }
  }
  throw py::value_error("set_cpu_capability(): expected name to be one of baseline, avx2, avx512, but got '" + name +
                        "'");
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("cpu_capability", [] { return d2l::cpu::name_of(d2l::cpu::capability()); });
  m.def("supported_cpu_capabilities", &supported_capabilities);
  m.def("set_cpu_capability", &set_capability);
  m.attr("built_with_cuda") = d2l::kBuiltWithCuda;
#if defined(D2L_EMULATED_LIBRARY)
  m.attr("emulates_cuda") = true;
#else
  m.attr("emulates_cuda") = false;
#endif
}
