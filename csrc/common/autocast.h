// Casting arguments to the autocast dtype, as torch does for its own ops. (A file of its own keeps the heavy header of
// autocast out of the ops.)
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace d2l {

// float32 (and the other 16-bit type) becomes the lower-precision dtype of autocast on `device`; weights that require
// grad are cast once per autocast region. Anything else, float64 included, is returned as it is.
at::Tensor autocast_to_lower_precision(const at::Tensor& tensor, c10::DeviceType device);
std::optional<at::Tensor> autocast_to_lower_precision(const std::optional<at::Tensor>& tensor, c10::DeviceType device);

// 16-bit tensors become float32, as for the ops that torch does not trust to lower precision.
at::Tensor autocast_to_float32(const at::Tensor& tensor, c10::DeviceType device);
std::optional<at::Tensor> autocast_to_float32(const std::optional<at::Tensor>& tensor, c10::DeviceType device);

}  // namespace d2l
