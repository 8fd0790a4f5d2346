// The `reduction` argument of losses.
#pragma once

#include <c10/util/Exception.h>

#include <string_view>

#include "kernels/shapes.h"

namespace d2l {

inline Reduction reduction_of(const char* op, std::string_view name) {
  if (name == "none") return Reduction::none;
  if (name == "mean") return Reduction::mean;
  TORCH_CHECK_VALUE(name == "sum", op, "(): expected reduction to be 'none', 'mean' or 'sum', but got '", name, "'");
  return Reduction::sum;
}

}  // namespace d2l
