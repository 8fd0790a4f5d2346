// The shared memory of one block: the dynamic part first, then the static variables as threads reach them.
//
// All of it is NaN until it is written. Each piece is followed by a red zone; in AddressSanitizer builds a touch is
// reported on the spot, in others a write is found when the block ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace d2l::emulator {

class SharedMemory {
 public:
  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Forgets what was there. `limit` bounds dynamic and static bytes together and is at most kCapacity.
  void reset(size_t dynamic_bytes, size_t limit);

  void* dynamic() const { return arena_; }
  // The static variable of `key` (an address per place in the source), or null if the limit is exceeded.
  void* variable(const void* key, size_t bytes, size_t alignment);

  bool contains(const void* pointer, size_t bytes) const;
  size_t used() const { return used_; }
  // Whether every red zone is as it was.
  bool intact();

  static constexpr size_t kCapacity = 227 * 1024;

 private:
  struct Piece {
    const void* key;
    size_t begin, end;
  };

  void add(const void* key, size_t begin, size_t bytes);

  unsigned char* arena_;
  std::vector<Piece> pieces_;
  size_t used_ = 0;
  size_t limit_ = 0;
};

}  // namespace d2l::emulator
