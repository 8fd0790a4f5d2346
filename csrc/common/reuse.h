// Writing the result of a backward over the gradient that it was called with.
//
// A gradient that nobody else holds is not read again once it went through an op. If that op works element by element,
// it may leave its result there: one map less at the peak of a training step, and no writes to memory that is in no
// cache. The backward, which knows, offers the gradient; the op, which it calls through the dispatcher as ever, takes
// it in place of new memory. An op that anyone else calls never writes to its arguments.
#pragma once

#include <ATen/core/Tensor.h>

namespace d2l {

// Offers `gradient` to the op that is called in its lifetime, if nobody else holds it and no other derivative (a
// second one, a batch of them) is to be taken through this call.
class OfferedGradient {
 public:
  explicit OfferedGradient(const at::Tensor& gradient);
  ~OfferedGradient();
  OfferedGradient(const OfferedGradient&) = delete;
  OfferedGradient& operator=(const OfferedGradient&) = delete;
};

// Memory for a result of the size, the dtype and the device of `gradient`, with elements in the order of `format`: that
// of `gradient` if it was offered and fits, else new. The op has read an element before it writes it.
at::Tensor taken_or_empty(const at::Tensor& gradient, at::MemoryFormat format);

// The same in the order of the elements of `like`.
at::Tensor taken_or_empty_like(const at::Tensor& gradient, const at::Tensor& like);

}  // namespace d2l
