#include "common/reuse.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/graph_task.h>

#include <utility>

#include "common/allocate.h"
#include "common/plain.h"

namespace d2l {

// The offers that stand on this thread, the last one first.
class Offers {
 public:
  static Offer* enter(Offer* offer) { return std::exchange(innermost_, offer); }
  static void leave(Offer* outer) { innermost_ = outer; }

  // The first tensor for which suits(tensor, is_saved), else undefined. It is taken once: an op has results of the same
  // size. What was saved leads to the node that made it; of its memory there is a tensor without that history.
  template <typename Suits>
  static at::Tensor take(Suits&& suits) {
    for (Offer* offer = innermost_; offer != nullptr; offer = offer->outer_) {
      if (offer->tensor_ == nullptr || !suits(*offer->tensor_, offer->is_saved_)) continue;
      at::Tensor tensor(TensorPointer::reclaim_copy(std::exchange(offer->tensor_, nullptr)));
      return offer->is_saved_ ? without_history(tensor) : tensor;
    }
    return {};
  }

 private:
  using TensorPointer = c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
  static thread_local Offer* innermost_;

  static at::Tensor without_history(const at::Tensor& saved) {
    const c10::DispatchKeySet keys(saved.options().computeDispatchKey());
    at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(saved.storage()), keys, saved.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(saved.sizes(), saved.strides());
    return tensor;
  }
};

thread_local Offer* Offers::innermost_ = nullptr;

namespace {

// Whether those are all the references to the tensor. Its wrapper in Python, if there is one, has another, and lives as
// long as the tensor does; whatever refers to it in Python, then, refers to the wrapper.
bool has_references(const at::Tensor& tensor, size_t count) {
  const auto& wrapper = *tensor.unsafeGetTensorImpl()->pyobj_slot();
  if (wrapper.load_pyobj() == nullptr) return tensor.use_count() == count;
  return tensor.use_count() == count + 1 && wrapper.has_unique_reference();
}

// The saved tensor, if autograd frees it when the backward returns; else undefined. CUDA memory may be promised to
// another stream (Tensor.record_stream) until it is freed.
const at::Tensor& spent(const at::Tensor& saved) {
  static const at::Tensor none;
  return saved.defined() && saved.is_cpu() && !torch::autograd::get_current_graph_task_keep_graph() ? saved : none;
}

}  // namespace

// Memory that torch did not allocate (of a NumPy array, say) may be somebody's whom no count knows: it is not
// resizable.
Offer::Offer(const at::Tensor& tensor, size_t references, bool is_saved)
    : is_saved_(is_saved), outer_(Offers::enter(this)) {
  if (tensor.defined() && !at::GradMode::is_enabled() && has_references(tensor, references) && is_plain(tensor) &&
      !is_watched() && tensor.has_storage() && tensor.storage().use_count() == 1 && tensor.storage_offset() == 0 &&
      tensor.storage().unsafeGetStorageImpl()->resizable()) {
    tensor_ = tensor.unsafeGetTensorImpl();
  }
}

Offer::~Offer() { Offers::leave(outer_); }

OfferedGradient::OfferedGradient(const at::Tensor& gradient) : Offer(gradient, 1, false) {}

// The node holds one reference, and the list another.
OfferedInput::OfferedInput(const at::Tensor& saved) : Offer(spent(saved), 2, true) {}

at::Tensor taken_or_empty(const at::Tensor& argument, at::MemoryFormat format) {
  const at::Tensor taken = Offers::take([&](const c10::TensorImpl& offered, bool) {
    return &offered == argument.unsafeGetTensorImpl() && argument.is_contiguous(format);
  });
  return taken.defined() ? taken : new_tensor(argument.sizes(), argument.options().memory_format(format));
}

at::Tensor taken_or_empty_like(const at::Tensor& argument, const at::Tensor& like) {
  const at::Tensor taken = Offers::take([&](const c10::TensorImpl& offered, bool) {
    return &offered == argument.unsafeGetTensorImpl() && argument.strides() == like.strides() &&
           argument.is_non_overlapping_and_dense();
  });
  return taken.defined() ? taken : new_like(like);
}

at::Tensor taken_or_empty(at::IntArrayRef size, const at::TensorOptions& options, at::MemoryFormat format) {
  const int64_t elements = c10::multiply_integers(size);
  const at::Tensor taken = Offers::take([&](const c10::TensorImpl& offered, bool is_saved) {
    return is_saved && offered.numel() == elements && offered.dtype() == options.dtype() &&
           offered.device() == options.device() && offered.is_non_overlapping_and_dense();
  });
  if (!taken.defined()) return new_tensor(size, options.memory_format(format));
  taken.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  taken.unsafeGetTensorImpl()->empty_tensor_restride(format);
  return taken;
}

}  // namespace d2l
