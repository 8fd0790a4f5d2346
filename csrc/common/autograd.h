// Small helpers for the C++ autograd functions of the ops.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <optional>

namespace d2l {

inline bool has_tangent(const at::Tensor& tensor) { return tensor.defined() && tensor._fw_grad(/*level=*/0).defined(); }

// Whether an op must record its backward. Tangents are refused: forward-mode AD enters through the Python wrappers in
// d2lkernels.ops, and an op that was called around them must not drop a tangent silently.
template <typename... Tensors>
bool needs_autograd(const char* op, const Tensors&... tensors) {
  TORCH_CHECK_NOT_IMPLEMENTED(!(has_tangent(tensors) || ...), op, "(): expected no forward-mode tangents in a call of ",
                              "torch.ops.d2lkernels.", op, ", but got some; call d2lkernels.ops instead");
  return at::GradMode::is_enabled() && ((tensors.defined() && tensors.requires_grad()) || ...);
}

// An op of ours by name, for calls through the dispatcher; keep the result, the look-up is slow.
template <typename Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

inline at::Tensor tensor_or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? *tensor : at::Tensor();
}

}  // namespace d2l
