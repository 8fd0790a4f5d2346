// Reads and writes every byte once: memory-bound. Threads share the rows; std::memcpy is dispatched to the machine's
// instruction set by the C library.
#include "kernels/cpu/concat.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/parallel.h"

namespace d2l::cpu {

void concat(int64_t rows, const ConcatPiece* pieces, int64_t count, void* output) {
  constexpr int64_t kBytesPerTask = 128 * 1024;  // fewer are not worth a thread
  int64_t pitch = 0;
  for (int64_t i = 0; i < count; ++i) pitch += pieces[i].row_bytes;
  if (rows * pitch == 0) return;
  parallel_for(0, rows, std::max<int64_t>(1, kBytesPerTask / pitch), [&](int64_t begin, int64_t end) {
    char* to = static_cast<char*>(output) + begin * pitch;
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t bytes = pieces[i].row_bytes;
        if (bytes == 0) continue;
        std::memcpy(to, static_cast<const char*>(pieces[i].data) + row * bytes, static_cast<size_t>(bytes));
        to += bytes;
      }
    }
  });
}

}  // namespace d2l::cpu
