// Memory for results, as at::empty and at::empty_like give it. On the CPU it comes from where these get it themselves:
// their way there, through the dispatcher once or twice, takes as long as the allocation.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace d2l {

inline at::Tensor new_tensor(at::IntArrayRef size, const at::TensorOptions& options) {
  return options.device().is_cpu() ? at::Tensor(at::detail::empty_cpu(size, options)) : at::empty(size, options);
}

inline at::Tensor new_like(const at::Tensor& tensor) {
  if (!tensor.is_cpu() || !tensor.is_non_overlapping_and_dense()) return at::empty_like(tensor);
  return at::detail::empty_strided_cpu(tensor.sizes(), tensor.strides(), tensor.options());
}

}  // namespace d2l
