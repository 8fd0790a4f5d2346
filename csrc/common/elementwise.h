// Tensors as arrays of elements that lie side by side, whatever their strides: for kernels to which the order of the
// elements does not matter. Outputs get the strides of the input, as torch's own element-wise ops have it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

namespace d2l {

// The tensor itself if its elements fill their memory, else a copy with its axes in the same order.
inline at::Tensor as_elements(const at::Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() ? tensor : at::empty_like(tensor).copy_(tensor);
}

// With its elements in the order of those of `like`, which is dense.
inline at::Tensor as_elements(const at::Tensor& tensor, const at::Tensor& like) {
  return tensor.strides() == like.strides() ? tensor : at::empty_like(like, tensor.options()).copy_(tensor);
}

}  // namespace d2l
