#include "common/reuse.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "common/allocate.h"

namespace d2l {
namespace {

thread_local const c10::TensorImpl* offered = nullptr;

// What a tensor has that is only memory. Others stand for something: for a batch, for a node of a traced graph, ...
constexpr c10::DispatchKeySet kPlainKeys({c10::DispatchKey::CPU, c10::DispatchKey::CUDA,
                                          c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::AutogradCPU,
                                          c10::DispatchKey::AutogradCUDA, c10::DispatchKey::AutocastCPU,
                                          c10::DispatchKey::AutocastCUDA});
// What watches, or rewrites, every call.
constexpr c10::DispatchKeySet kWatchingKeys({c10::DispatchKey::Python, c10::DispatchKey::PythonDispatcher,
                                             c10::DispatchKey::Functionalize,
                                             c10::DispatchKey::FuncTorchDynamicLayerFrontMode});

bool is_plain(const at::Tensor& tensor) {
  return (tensor.key_set() - kPlainKeys).highestFunctionalityKey() == c10::DispatchKey::Undefined;
}

bool is_watched() {
  return c10::impl::dispatch_mode_enabled() || c10::impl::tls_local_dispatch_key_set().included_.has_any(kWatchingKeys);
}

// Memory that torch did not allocate (of a NumPy array, say) may be somebody's whom no count knows: it is not
// resizable.
bool is_ours_alone(const at::Tensor& tensor) {
  return tensor.use_count() == 1 && tensor.has_storage() && tensor.storage().use_count() == 1 &&
         tensor.storage().unsafeGetStorageImpl()->resizable();
}

bool take(const at::Tensor& gradient) {
  const bool is_offered = offered == gradient.unsafeGetTensorImpl();
  if (is_offered) offered = nullptr;  // once: an op has results of the same size
  return is_offered;
}

}  // namespace

OfferedGradient::OfferedGradient(const at::Tensor& gradient) {
  if (gradient.defined() && !at::GradMode::is_enabled() && is_ours_alone(gradient) && is_plain(gradient) &&
      !is_watched()) {
    offered = gradient.unsafeGetTensorImpl();
  }
}

OfferedGradient::~OfferedGradient() { offered = nullptr; }

at::Tensor taken_or_empty(const at::Tensor& gradient, at::MemoryFormat format) {
  if (gradient.is_contiguous(format) && take(gradient)) return gradient;
  return new_tensor(gradient.sizes(), gradient.options().memory_format(format));
}

at::Tensor taken_or_empty_like(const at::Tensor& gradient, const at::Tensor& like) {
  if (gradient.strides() == like.strides() && gradient.is_non_overlapping_and_dense() && take(gradient))
    return gradient;
  return new_like(like);
}

}  // namespace d2l
