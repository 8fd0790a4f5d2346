#include "common/plain.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

namespace d2l {
namespace {

// What a tensor has that is only memory.
constexpr c10::DispatchKeySet kPlainKeys({c10::DispatchKey::CPU, c10::DispatchKey::CUDA,
                                          c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::AutogradCPU,
                                          c10::DispatchKey::AutogradCUDA, c10::DispatchKey::AutocastCPU,
                                          c10::DispatchKey::AutocastCUDA});
constexpr c10::DispatchKeySet kWatchingKeys({c10::DispatchKey::Python, c10::DispatchKey::PythonDispatcher,
                                             c10::DispatchKey::Functionalize,
                                             c10::DispatchKey::FuncTorchDynamicLayerFrontMode});

}  // namespace

bool is_plain(const at::Tensor& tensor) {
  return (tensor.key_set() - kPlainKeys).highestFunctionalityKey() == c10::DispatchKey::Undefined;
}

bool is_watched() {
  return c10::impl::dispatch_mode_enabled() || c10::impl::tls_local_dispatch_key_set().included_.has_any(kWatchingKeys);
}

}  // namespace d2l
