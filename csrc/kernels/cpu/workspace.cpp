#include "kernels/cpu/workspace.h"

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace d2l::cpu {
namespace {

constexpr std::align_val_t kAlignment{64}, kHugeAlignment{2 << 20};
constexpr auto kHugePage = static_cast<int64_t>(kHugeAlignment);
constexpr std::align_val_t alignment_of(int64_t bytes) { return bytes >= kHugePage ? kHugeAlignment : kAlignment; }

// What is kept adds to the memory of the process. Only packed weights are worth that much of it; a call that needs a
// larger strip or map is the exception, and takes so long that fresh pages cost it next to nothing.
constexpr int64_t kept_bytes(Workspace purpose) { return int64_t{purpose == Workspace::call ? 16 : 4} << 20; }

// Kernels walk through large buffers in planes and pieces: with pages of 4 KB every few lines are another page, over a
// thousand in one task. Linux gives huge pages to who asks where its setting is "madvise". Only whole ones: a part of
// one at the end would be memory that nobody needs. A refusal costs nothing.
void ask_for_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  madvise(data, static_cast<size_t>(bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
#endif
}

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  void* reserve(int64_t bytes) {
    if (bytes > size_) {
      release();
      data_ = ::operator new(static_cast<size_t>(bytes), alignment_of(bytes));
      size_ = bytes;
      if (bytes >= kHugePage) ask_for_huge_pages(data_, bytes);
    }
    return data_;
  }

  void trim(int64_t kept) {
    if (size_ > kept) release();
  }

 private:
  void release() {
    ::operator delete(data_, alignment_of(size_));
    data_ = nullptr;
    size_ = 0;
  }

  void* data_ = nullptr;
  int64_t size_ = 0;
};

Buffer& buffer(Workspace purpose) {
  thread_local Buffer buffers[6];
  return buffers[static_cast<int>(purpose)];
}

}  // namespace

void* workspace(Workspace purpose, int64_t bytes) { return buffer(purpose).reserve(bytes); }

void trim_workspace(Workspace purpose) { buffer(purpose).trim(kept_bytes(purpose)); }

}  // namespace d2l::cpu
