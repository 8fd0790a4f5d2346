// Arrays for tables of the launchers, which are short where a call has little to do: allocating them would take longer
// than that.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

namespace d2l::cpu {

// `length` zeros. Up to kShort of them lie in the object itself.
template <typename T, int64_t kShort>
class ShortArray {
 public:
  ShortArray() = default;
  explicit ShortArray(int64_t length) { reset(length); }
  ShortArray(const ShortArray&) = delete;
  ShortArray& operator=(const ShortArray&) = delete;

  void reset(int64_t length) {
    if (length > kShort) long_ = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(length));
    length_ = length;
    std::fill_n(data(), length, T());
  }
  int64_t size() const { return length_; }
  T* data() { return length_ > kShort ? long_.get() : short_.data(); }
  const T* data() const { return length_ > kShort ? long_.get() : short_.data(); }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + length_; }

 private:
  int64_t length_ = 0;
  std::unique_ptr<T[]> long_;
  std::array<T, kShort> short_;
};

}  // namespace d2l::cpu
