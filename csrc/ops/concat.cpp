// Concatenation along a dimension: checks, kernels for CPU, CUDA and Meta, autograd.
//
// Linear in all tensors together. Its derivatives are views of grad_output, which torch differentiates. Tensors of
// different dtypes are promoted as torch.cat does, so that autocast needs no rule of its own.
#include <ATen/core/Tensor.h>
#include <ATen/native/TypeProperties.h>
#include <ATen/ops/narrow.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

#include "common/allocate.h"
#include "common/autograd.h"
#include "common/check.h"
#include "common/device.h"
#include "common/function.h"
#include "kernels/cpu/concat.h"
#include "kernels/cuda/concat.h"

namespace d2l {
namespace {

using at::Tensor;
using at::TensorList;
using c10::SymInt;

constexpr const char* kName = "concat";

// ---- checks ----------------------------------------------------------------------------------------------------

template <typename Int>
struct Result {
  std::vector<Int> size;
  int64_t dim;
};

template <typename Int>
Result<Int> check_concat(TensorList tensors, int64_t dim) {
  TORCH_CHECK_VALUE(!tensors.empty(), kName, "(): expected tensors to hold at least one tensor, but got none");
  const Tensor& first = tensors[0];
  const int64_t rank = first.dim();
  TORCH_CHECK_VALUE(rank >= 1, kName, "(): expected tensors to be at least 1-D, but got a scalar");
  TORCH_CHECK_VALUE(-rank <= dim && dim < rank, kName, "(): expected dim to be from ", -rank, " to ", rank - 1,
                    " for tensors of ", rank, " dimensions, but got ", dim);
  Result<Int> result{sizes_of<Int>(first).vec(), dim < 0 ? dim + rank : dim};
  check_strided(kName, "tensors[0]", first);
  for (size_t i = 1; i < tensors.size(); ++i) {
    const auto size = sizes_of<Int>(tensors[i]);
    bool fits = tensors[i].dim() == rank;
    for (int64_t axis = 0; fits && axis < rank; ++axis) {
      fits = axis == result.dim || size[axis] == sizes_of<Int>(first)[axis];
    }
    TORCH_CHECK_VALUE(fits, kName, "(): expected tensors[", i, "] to have the size of tensors[0], ",
                      sizes_of<Int>(first), ", except in dimension ", result.dim, ", but got ", size);
    TORCH_CHECK(tensors[i].device() == first.device(), kName, "(): expected tensors[", i,
                "] to be on the device of tensors[0] (", first.device(), "), but got ", tensors[i].device());
    TORCH_CHECK_NOT_IMPLEMENTED(tensors[i].layout() == at::kStrided, kName, "(): expected tensors[", i,
                                "] to be a dense (strided) tensor, but got layout ", tensors[i].layout());
    result.size[static_cast<size_t>(result.dim)] = result.size[static_cast<size_t>(result.dim)] + size[result.dim];
  }
  return result;
}

at::TensorOptions result_options(TensorList tensors) {
  // torch's rule: the format of all tensors, or contiguous where they differ.
  auto format = tensors[0].suggest_memory_format();
  for (const Tensor& tensor : tensors) {
    if (tensor.suggest_memory_format() != format) format = at::MemoryFormat::Contiguous;
  }
  return tensors[0].options().dtype(at::native::result_type(tensors)).memory_format(format);
}

// ---- kernels on CPU and CUDA -----------------------------------------------------------------------------------

// Axes in the order of memory, outermost first.
std::vector<int64_t> memory_order(int64_t rank, at::MemoryFormat format) {
  std::vector<int64_t> order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  if (format != at::MemoryFormat::Contiguous) {
    std::rotate(order.begin() + 1, order.begin() + 2, order.end());  // channels innermost
  }
  return order;
}

Tensor concat(TensorList tensors, int64_t dim) {
  const auto result = check_concat<int64_t>(tensors, dim);
  const auto options = result_options(tensors);
  Tensor output = new_tensor(result.size, options);
  if (output.numel() == 0) {
    return output;
  }
  const auto format = *options.memory_format_opt();
  const auto order = memory_order(output.dim(), format);
  const auto place = std::find(order.begin(), order.end(), result.dim);
  int64_t rows = 1;
  for (auto axis = order.begin(); axis != place; ++axis) {
    rows *= output.size(*axis);
  }
  std::vector<Tensor> dense;
  std::vector<ConcatPiece> pieces;
  dense.reserve(tensors.size());
  pieces.reserve(tensors.size());
  for (const Tensor& tensor : tensors) {
    dense.push_back(tensor.to(output.scalar_type()).contiguous(format));
    pieces.push_back({dense.back().const_data_ptr(), static_cast<int64_t>(dense.back().nbytes()) / rows});
  }
  const auto count = static_cast<int64_t>(pieces.size());
  D2L_ON_CUDA(kName, output) {
    const DeviceScope device(output);
    check_launch(kName, output, cuda::concat(rows, pieces.data(), count, output.mutable_data_ptr(), device.stream()));
    return output;
  }
  cpu::concat(rows, pieces.data(), count, output.mutable_data_ptr());
  return output;
}

// ---- Meta: the same checks and strides, no memory --------------------------------------------------------------

Tensor concat_meta(TensorList tensors, int64_t dim) {
  const auto result = check_concat<SymInt>(tensors, dim);
  return at::empty_symint(result.size, result_options(tensors));
}

// ---- autograd --------------------------------------------------------------------------------------------------

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_concat(TensorList tensors, int64_t dim) {
  static const auto op = find_op<decltype(concat)>("d2lkernels::concat");
  return op.call(tensors, dim);
}

struct Concat : Function<Concat> {
  static Tensor forward(AutogradContext* ctx, TensorList tensors, int64_t dim) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor output = call_concat(tensors, dim);
    dim = dim < 0 ? dim + output.dim() : dim;
    std::vector<SymInt> lengths;
    std::vector<int64_t> dtypes;
    for (const Tensor& tensor : tensors) {
      lengths.push_back(tensor.sym_size(dim));
      dtypes.push_back(static_cast<int64_t>(tensor.scalar_type()));
    }
    ctx->saved_data["dim"] = dim;
    ctx->saved_data["lengths"] = std::move(lengths);
    ctx->saved_data["dtypes"] = std::move(dtypes);
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto lengths = ctx->saved_data["lengths"].toSymIntVector();
    const auto dtypes = ctx->saved_data["dtypes"].toIntVector();
    const int64_t dim = ctx->saved_data["dim"].toInt();
    variable_list result(lengths.size() + 1);
    if (!grads[0].defined()) {
      return result;
    }
    // Views that nobody differentiates need not pass through torch's autograd layer.
    std::optional<at::AutoDispatchBelowAutograd> guard;
    if (!at::GradMode::is_enabled()) guard.emplace();
    SymInt begin = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (ctx->needs_input_grad(i)) {
        result[i] = at::narrow_symint(grads[0], dim, begin, lengths[i]).to(static_cast<at::ScalarType>(dtypes[i]));
      }
      begin = begin + lengths[i];
    }
    return result;
  }
};

Tensor concat_autograd(TensorList tensors, int64_t dim) {
  bool records = false;
  for (const Tensor& tensor : tensors) {
    records = needs_autograd(kName, tensor) || records;
  }
  if (records) {
    return Concat::apply(tensors, dim);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_concat(tensors, dim);
}

}  // namespace
}  // namespace d2l

TORCH_LIBRARY_IMPL(d2lkernels, CPU, m) { m.impl("concat", d2l::concat); }
TORCH_LIBRARY_IMPL(d2lkernels, CUDA, m) { m.impl("concat", d2l::concat); }
TORCH_LIBRARY_IMPL(d2lkernels, Meta, m) { m.impl("concat", d2l::concat_meta); }
TORCH_LIBRARY_IMPL(d2lkernels, Autograd, m) { m.impl("concat", d2l::concat_autograd); }
