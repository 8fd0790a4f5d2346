// From the dtype of a tensor to the types that CPU kernels are instantiated for.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace d2l {

// CPU kernels come for float32 and float64. 16-bit types are computed in float32 and rounded once, at the end.
inline bool is_16_bit(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
}

inline std::vector<at::Tensor> to_float(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.to(at::kFloat));
  return result;
}

// function(float{}) or function(double{}).
template <typename Function>
void visit_cpu_dtype(const at::Tensor& tensor, Function&& function) {
  if (tensor.scalar_type() == at::kDouble) {
    function(double{});
  } else {
    function(float{});
  }
}

}  // namespace d2l
