// Writing the result of a backward over memory that nobody will read again: the gradient that it was called with, or
// what it had saved.
//
// A gradient that nobody else holds is not read again once it went through an op; nor is a saved tensor that nobody
// else holds, where autograd frees it when the backward returns (unless the graph is kept). An op that has read an
// element before it writes its result there may leave the result in such memory: one map less at the peak of a training
// step, and no writes to memory that is in no cache. The backward, which knows, offers the tensor; the op, which it
// calls through the dispatcher as ever, takes it in place of new memory. An op that anyone else calls never writes to
// its arguments.
#pragma once

#include <ATen/core/Tensor.h>

namespace d2l {

// A tensor that is offered to the op that is called in the lifetime of this, if nobody else holds it and no other
// derivative (a second one, a batch of them) is to be taken through this call.
class Offer {
 public:
  ~Offer();
  Offer(const Offer&) = delete;
  Offer& operator=(const Offer&) = delete;

 protected:
  // `references`: how many to the tensor the backward knows of.
  Offer(const at::Tensor& tensor, size_t references, bool is_saved);

 private:
  friend class Offers;
  c10::TensorImpl* tensor_ = nullptr;  // null: not offered, or taken
  const bool is_saved_;
  Offer* const outer_;
};

class OfferedGradient : public Offer {
 public:
  explicit OfferedGradient(const at::Tensor& gradient);
};

// An argument of the forward function, from the list of saved tensors that its backward got from its context. (A saved
// result is another tensor of the same storage, and hooks of saved tensors may hold a third one: nobody can tell.)
class OfferedInput : public Offer {
 public:
  explicit OfferedInput(const at::Tensor& saved);
};

// Memory for a result of the size, the dtype and the device of `argument`, with elements in the order of `format`: that
// of `argument` if it was offered and fits, else new. The op has read an element before it writes it.
at::Tensor taken_or_empty(const at::Tensor& argument, at::MemoryFormat format);

// The same in the order of the elements of `like`.
at::Tensor taken_or_empty_like(const at::Tensor& argument, const at::Tensor& like);

// The same, for a result of that size, of any saved tensor of as many elements that was offered. For ops that read none
// of them.
at::Tensor taken_or_empty(at::IntArrayRef size, const at::TensorOptions& options, at::MemoryFormat format);

}  // namespace d2l
