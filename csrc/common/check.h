// Checks of op arguments. Every message reads
//   <op>(): expected <argument> to <requirement>, but got <value>
// and is written once: the CPU, CUDA and Meta kernels of an op share one check function, which takes sizes as int64_t
// or, when traced with symbolic shapes, as c10::SymInt.
//
// Wrong values raise ValueError, wrong dtypes TypeError, mixed devices RuntimeError (as torch does).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/util/Exception.h>

#include <array>

namespace d2l {

template <typename Int>
inline c10::ArrayRef<Int> sizes_of(const at::Tensor& tensor) {
  if constexpr (std::is_same_v<Int, c10::SymInt>) {
    return tensor.sym_sizes();
  } else {
    return tensor.sizes();
  }
}

inline void check_rank4(const char* op, const char* argument, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.dim() == 4, op, "(): expected ", argument, " to be 4-D, but got a ", tensor.dim(),
                    "-D tensor of size ", tensor.sym_sizes());
}

inline void check_floating(const char* op, const char* argument, const at::Tensor& tensor) {
  const auto dtype = tensor.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf, op,
                   "(): expected ", argument, " to be float32, float64, bfloat16 or float16, but got ", dtype);
}

inline void check_same_dtype(const char* op, const char* argument, const at::Tensor& tensor, const char* other,
                             const at::Tensor& other_tensor) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == other_tensor.scalar_type(), op, "(): expected ", argument,
                   " to have the dtype of ", other, " (", other_tensor.scalar_type(), "), but got ",
                   tensor.scalar_type());
}

inline void check_same_device(const char* op, const char* argument, const at::Tensor& tensor, const char* other,
                              const at::Tensor& other_tensor) {
  TORCH_CHECK(tensor.device() == other_tensor.device(), op, "(): expected ", argument, " to be on the device of ",
              other, " (", other_tensor.device(), "), but got ", tensor.device());
}

inline void check_strided(const char* op, const char* argument, const at::Tensor& tensor) {
  TORCH_CHECK_NOT_IMPLEMENTED(tensor.layout() == at::kStrided, op, "(): expected ", argument,
                              " to be a dense (strided) tensor, but got layout ", tensor.layout());
}

// Strides, dilations, kernel sizes: two positive ints. Paddings: not negative.
inline void check_pair(const char* op, const char* argument, at::IntArrayRef values, int64_t minimum) {
  TORCH_CHECK_VALUE(values.size() == 2 && values[0] >= minimum && values[1] >= minimum, op, "(): expected ", argument,
                    " to be two integers of at least ", minimum, ", but got ", values);
}

template <typename Int>
inline void check_size(const char* op, const char* argument, const at::Tensor& tensor,
                       const std::array<Int, 4>& expected) {
  TORCH_CHECK_VALUE(sizes_of<Int>(tensor) == c10::ArrayRef<Int>(expected), op, "(): expected ", argument,
                    " to have size ", c10::ArrayRef<Int>(expected), ", but got ", sizes_of<Int>(tensor));
}

}  // namespace d2l
