// Calls of the ops that are called most, without the boxed arguments of torch.ops: see calls.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace d2l {

void register_calls(pybind11::module_& module);

}  // namespace d2l
