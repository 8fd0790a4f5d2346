// Whether a tensor is nothing but memory and a call nothing but work on it. Where either stands for something else (a
// batch, a node of a traced graph, ...), ops go through the dispatcher, and whoever is interested sees them.
#pragma once

#include <ATen/core/Tensor.h>

namespace d2l {

bool is_plain(const at::Tensor& tensor);

// Whether something watches, or rewrites, every call.
bool is_watched();

}  // namespace d2l
