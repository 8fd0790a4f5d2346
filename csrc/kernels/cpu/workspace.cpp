#include "kernels/cpu/workspace.h"

#include <cstddef>
#include <new>

namespace d2l::cpu {
namespace {

constexpr std::align_val_t kAlignment{64};
// What is kept adds to the memory of the process. Only packed weights are worth that much of it; a call that needs a
// larger strip or map is the exception, and takes so long that fresh pages cost it next to nothing.
constexpr int64_t kept_bytes(Workspace purpose) { return int64_t{purpose == Workspace::call ? 16 : 4} << 20; }

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  void* reserve(int64_t bytes) {
    if (bytes > size_) {
      release();
      data_ = ::operator new(static_cast<size_t>(bytes), kAlignment);
      size_ = bytes;
    }
    return data_;
  }

  void trim(int64_t kept) {
    if (size_ > kept) release();
  }

 private:
  void release() {
    ::operator delete(data_, kAlignment);
    data_ = nullptr;
    size_ = 0;
  }

  void* data_ = nullptr;
  int64_t size_ = 0;
};

Buffer& buffer(Workspace purpose) {
  thread_local Buffer buffers[4];
  return buffers[static_cast<int>(purpose)];
}

}  // namespace

void* workspace(Workspace purpose, int64_t bytes) { return buffer(purpose).reserve(bytes); }

void trim_workspace(Workspace purpose) { buffer(purpose).trim(kept_bytes(purpose)); }

}  // namespace d2l::cpu
