// The Python module d2lkernels._C. Loading it registers the ops (registration.cpp). It tells what only the compiled
// library knows, holds the run-time switches, and has short calls of some ops (calls.cpp).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "calls.h"
#include "common/device.h"
#include "common/freed_memory.h"
#include "kernels/cpu/capability.h"
#include "kernels/cpu/conv2d_algorithm.h"

namespace py = pybind11;
using d2l::cpu::Capability;
using d2l::cpu::Conv2dAlgorithm;
using d2l::cpu::Conv2dPass;

namespace {

py::list supported_capabilities() {
  py::list names;
  for (const Capability capability : d2l::cpu::kCapabilities) {
    if (d2l::cpu::is_supported(capability)) {
      names.append(d2l::cpu::name_of(capability));
    }
  }
  return names;
}

void set_capability(const std::string& name) {
  for (const Capability capability : d2l::cpu::kCapabilities) {
    if (name == d2l::cpu::name_of(capability)) {
      d2l::cpu::set_capability(capability);
      return;
    }
  }
  throw py::value_error("set_cpu_capability(): expected name to be one of baseline, avx2, avx512, amx, but got '" +
                        name + "'");
}

void set_conv_algorithm(const std::string& name) {
  for (const auto algorithm : {Conv2dAlgorithm::automatic, Conv2dAlgorithm::direct, Conv2dAlgorithm::winograd}) {
    if (name == d2l::cpu::name_of(algorithm)) {
      d2l::cpu::set_conv2d_algorithm(algorithm);
      return;
    }
  }
  throw py::value_error("set_conv_algorithm(): expected name to be one of auto, direct, winograd, but got '" + name +
                        "'");
}

// What forward, input gradient and weight gradient get; pairs are (height, width), padding is (top, left).
std::array<std::string, 3> conv2d_algorithms(const std::array<int64_t, 4>& input, const std::array<int64_t, 4>& weight,
                                             const std::array<int64_t, 2>& output, const std::array<int64_t, 2>& stride,
                                             const std::array<int64_t, 2>& padding,
                                             const std::array<int64_t, 2>& dilation, int64_t groups) {
  const d2l::Conv2dShape shape{input[0],   input[1],    input[2],    input[3],  weight[0], weight[2],
                               weight[3],  output[0],   output[1],   stride[0], stride[1], padding[0],
                               padding[1], dilation[0], dilation[1], groups};
  return {d2l::cpu::describe_algorithm(shape, Conv2dPass::forward),
          d2l::cpu::describe_algorithm(shape, Conv2dPass::input_grad),
          d2l::cpu::describe_algorithm(shape, Conv2dPass::weight_grad)};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("cpu_capability", [] { return d2l::cpu::name_of(d2l::cpu::capability()); });
  m.def("supported_cpu_capabilities", &supported_capabilities);
  m.def("set_cpu_capability", &set_capability);
  m.def("conv_algorithm", [] { return d2l::cpu::name_of(d2l::cpu::conv2d_algorithm()); });
  m.def("set_conv_algorithm", &set_conv_algorithm);
  m.def("conv2d_algorithms", &conv2d_algorithms);
  m.def("keep_freed_memory", &d2l::keep_freed_memory);
  d2l::register_calls(m);
  m.attr("built_with_cuda") = d2l::kBuiltWithCuda;
#if defined(D2L_EMULATED_LIBRARY)
  m.attr("emulates_cuda") = true;
#else
  m.attr("emulates_cuda") = false;
#endif
}
