#include "emulator/copies.h"

#include <cstring>

namespace d2l::emulator {
namespace {

void carry_out(void* to, const void* from, size_t bytes) {
  if (from != nullptr) {
    std::memcpy(to, from, bytes);
  } else {
    std::memset(to, 0, bytes);
  }
}

}  // namespace

void Copies::issue(void* to, const void* from, size_t bytes, bool at_once) {
  if (at_once) {
    carry_out(to, from, bytes);
    return;
  }
#if defined(__SANITIZE_ADDRESS__)
  // So that a bad address is reported where the copy is issued, not where it is waited for.
  if (from != nullptr) {
    const volatile char* source = static_cast<const volatile char*>(from);
    static_cast<void>(source[0]), static_cast<void>(source[bytes - 1]);
  }
#endif
  pending_.push_back({to, from, bytes});
}

void Copies::wait(size_t allowed) {
  while (group_ends_.size() - groups_done_ > allowed) {
    for (const size_t end = group_ends_[groups_done_]; copies_done_ < end; ++copies_done_) {
      const Copy& copy = pending_[copies_done_];
      carry_out(copy.to, copy.from, copy.bytes);
    }
    ++groups_done_;
  }
  if (groups_done_ == group_ends_.size() && copies_done_ == pending_.size()) reset();
}

}  // namespace d2l::emulator
