// torch::autograd::Function for our ops. torch's node looks up and demangles its own name at each call of backward, for
// an error message; that takes longer than the rest of the node. Ours keeps the name of its class.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <concepts>
#include <mutex>
#include <string>
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
  variable_list apply(variable_list&& inputs) override {
    static const std::string name = this->name();
    const std::lock_guard<std::mutex> lock(this->mutex_);
    return CppNode_apply_functional<d2l::Backward<T>>(std::move(inputs), this->ctx_, this->is_variable_input_,
                                                      this->output_info_, name);
  }
};
