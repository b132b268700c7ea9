// SPDX-License-Identifier: Apache-2.0
#pragma once
// Owned memory for kernels: aligned, uninitialised unless said, movable, typed by its user.

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/result.h"

namespace banyan {

// 64-byte aligned heap array of trivially copyable T.
template <class T>
class AlignedArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedArray() = default;
  explicit AlignedArray(size_t size) : size_(size) {
    BANYAN_CHECK(size <= SIZE_MAX / sizeof(T), "the bytes of an array do not fit size_t");
    data_ = static_cast<T*>(::operator new (size * sizeof(T), std::align_val_t{64}));
  }
  AlignedArray(AlignedArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedArray() { ::operator delete (data_, std::align_val_t{64}); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

  // Grows to at least `size` elements; contents are lost when it grows, kept when it does not.
  void reserve_discarding(size_t size) {
    if (size > size_) *this = AlignedArray(size);
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Anonymous zeroed pages: address space is taken now, memory only as pages are touched, and only in
// small pages: planes are used sparsely, and a budget that counts touched bytes must hold.
class PageReservation {
 public:
  // kFailed if the address space cannot be had. Nothing is reserved for 0 bytes.
  static Result<PageReservation> reserve(uint64_t bytes);
  PageReservation() = default;
  PageReservation(PageReservation&& other) noexcept;
  PageReservation& operator=(PageReservation&& other) noexcept;
  ~PageReservation();

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

// Whether there is anything at `path` for MappedFile::open() to open or to find fault with: a link
// that leads nowhere and what may not be looked at count.
bool is_there(const std::string& path);

// A whole file mapped read-only.
class MappedFile {
 public:
  // kBadInput with the path as given if it is missing, unreadable, not a regular file or empty.
  // The file must not shrink while it is mapped.
  static Result<MappedFile> open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace banyan
