// torch::autograd::Function for our ops. torch's node looks up and demangles its own name at each call of backward, for
// an error message, and makes two more lists of tensors; that takes longer than the rest of the node.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <concepts>
#include <mutex>
#include <utility>

namespace d2l {

template <class T>
struct Function : torch::autograd::Function<T> {};

// The backward of T by another name, so that there is a node of torch's to derive from.
template <class T>
struct Backward {
  static constexpr bool is_traceable = T::is_traceable;
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list& grads) {
    return T::backward(ctx, grads);
  }
};

}  // namespace d2l

// Function<T>::apply makes a node of this type.
template <class T>
  requires std::derived_from<T, d2l::Function<T>>
struct torch::autograd::CppNode<T> : torch::autograd::CppNode<d2l::Backward<T>> {
  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(this->mutex_);
    at::OptionalDeviceGuard device;
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!grads[i].defined() && this->ctx_.materialize_grads_) grads[i] = this->output_info_[i].zeros(device);
    }
    variable_list results = T::backward(&this->ctx_, grads);
    // One for each argument of the forward pass; the engine takes those of the tensors among them.
    const std::vector<bool>& is_tensor = this->is_variable_input_;
    TORCH_INTERNAL_ASSERT(results.size() == is_tensor.size());
    size_t count = 0;
    for (size_t i = 0; i < is_tensor.size(); ++i) {
      if (is_tensor[i]) results[count++] = std::move(results[i]);
    }
    results.resize(count);
    return results;
  }
};
