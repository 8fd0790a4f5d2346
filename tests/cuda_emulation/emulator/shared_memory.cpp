#include "emulator/shared_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "emulator/sanitizer.h"

namespace d2l::emulator {
namespace {

constexpr size_t kAlignment = 1024;
constexpr size_t kRedZone = 128;
constexpr size_t kArenaBytes = 512 * 1024;  // room for the red zones, however many variables there are
constexpr unsigned char kPoison = 0xff;     // a NaN in every floating-point format
constexpr unsigned char kRedZoneByte = 0xa5;

}  // namespace

SharedMemory::SharedMemory() : arena_(static_cast<unsigned char*>(std::aligned_alloc(kAlignment, kArenaBytes))) {
  if (arena_ == nullptr) throw std::bad_alloc();
}

SharedMemory::~SharedMemory() {
  unpoison(arena_, kArenaBytes);
  std::free(arena_);
}

void SharedMemory::reset(size_t dynamic_bytes, size_t limit) {
  pieces_.clear();
  used_ = 0;
  limit_ = limit;
  poison(arena_, kArenaBytes);
  add(nullptr, 0, dynamic_bytes);
}

void SharedMemory::add(const void* key, size_t begin, size_t bytes) {
  pieces_.push_back({key, begin, begin + bytes});
  used_ += bytes;
  unpoison(arena_ + begin, bytes + kRedZone);
  std::memset(arena_ + begin, kPoison, bytes);
  std::memset(arena_ + begin + bytes, kRedZoneByte, kRedZone);
  poison(arena_ + begin + bytes, kRedZone);
}

void* SharedMemory::variable(const void* key, size_t bytes, size_t alignment) {
  for (const Piece& piece : pieces_) {
    if (piece.key == key) return arena_ + piece.begin;
  }
  const size_t behind = pieces_.back().end + kRedZone;
  const size_t begin = (behind + alignment - 1) / alignment * alignment;
  if (used_ + bytes > limit_ || begin + bytes + kRedZone > kArenaBytes) return nullptr;
  add(key, begin, bytes);
  return arena_ + begin;
}

bool SharedMemory::contains(const void* pointer, size_t bytes) const {
  const uintptr_t from = reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(arena_);
  return std::any_of(pieces_.begin(), pieces_.end(),
                     [&](const Piece& piece) { return from >= piece.begin && from + bytes <= piece.end; });
}

bool SharedMemory::intact() {
  for (const Piece& piece : pieces_) {
    unpoison(arena_ + piece.end, kRedZone);
    for (size_t i = 0; i < kRedZone; ++i) {
      if (arena_[piece.end + i] != kRedZoneByte) return false;
    }
  }
  return true;
}

}  // namespace d2l::emulator
