#include "common/autocast.h"

#include <ATen/autocast_mode.h>

namespace d2l {

at::Tensor autocast_to_lower_precision(const at::Tensor& tensor, c10::DeviceType device) {
  return at::autocast::cached_cast(at::autocast::get_lower_precision_fp_from_device_type(device), tensor, device);
}

std::optional<at::Tensor> autocast_to_lower_precision(const std::optional<at::Tensor>& tensor, c10::DeviceType device) {
  return tensor.has_value() ? std::optional(autocast_to_lower_precision(*tensor, device)) : std::nullopt;
}

at::Tensor autocast_to_float32(const at::Tensor& tensor, c10::DeviceType device) {
  return at::autocast::cached_cast(at::kFloat, tensor, device);
}

std::optional<at::Tensor> autocast_to_float32(const std::optional<at::Tensor>& tensor, c10::DeviceType device) {
  return tensor.has_value() ? std::optional(autocast_to_float32(*tensor, device)) : std::nullopt;
}

}  // namespace d2l
