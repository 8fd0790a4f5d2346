// From the dtype of a tensor to the types that CPU kernels are instantiated for.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/cpu/element.h"

namespace d2l {

// CPU kernels come for float32 and float64, many for bfloat16 too. Other 16-bit tensors are computed as float32 copies.
// Either way they are rounded once, at the end.
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

// Whether kernels that come for bfloat16 too take the tensor as it is.
inline bool is_element_type(const at::Tensor& tensor) { return tensor.scalar_type() != at::kHalf; }

// function(E{}), where E is the type of the elements as these kernels have it.
template <typename Function>
void visit_cpu_element(const at::Tensor& tensor, Function&& function) {
  if (tensor.scalar_type() == at::kBFloat16) {
    function(cpu::BFloat16{});
  } else {
    visit_cpu_dtype(tensor, function);
  }
}

template <typename E>
const E* elements(const at::Tensor& tensor) {
  return static_cast<const E*>(tensor.const_data_ptr());
}

template <typename E>
E* mutable_elements(const at::Tensor& tensor) {
  return static_cast<E*>(tensor.mutable_data_ptr());
}

}  // namespace d2l
