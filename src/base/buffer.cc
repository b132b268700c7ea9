// SPDX-License-Identifier: Apache-2.0
#include "base/buffer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/bytes.h"

namespace banyan {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

Result<PageReservation> PageReservation::reserve(uint64_t bytes) {
  PageReservation reservation;
  if (bytes == 0) return reservation;
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return failed(fmt::format("could not reserve {} of address space ({}); a smaller size may fit",
                              format_bytes(bytes), reason(errno)));
  }
  // Only advice: a kernel without huge pages refuses it, and is right.
  static_cast<void>(::madvise(data, bytes, MADV_NOHUGEPAGE));
  reservation.data_ = static_cast<std::byte*>(data);
  reservation.size_ = bytes;
  return reservation;
}

PageReservation::PageReservation(PageReservation&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

PageReservation& PageReservation::operator=(PageReservation&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

PageReservation::~PageReservation() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

bool is_there(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::symlink_status(path, ignored).type() !=
         std::filesystem::file_type::not_found;
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: a named pipe without a writer would hold us here.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    return bad_input(fmt::format("could not open file '{}': {}", path, reason(errno)));
  }
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) {
    return bad_input(fmt::format("could not open file '{}': {}", path, reason(errno)));
  }
  if (!S_ISREG(status.st_mode)) {
    return bad_input(fmt::format("'{}' is {}, not a file", path,
                                 S_ISDIR(status.st_mode) ? "a directory" : "a device or pipe"));
  }
  if (status.st_size <= 0) return bad_input(fmt::format("file '{}' is empty", path));
  const size_t size = static_cast<size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    return bad_input(fmt::format("could not map file '{}': {}", path, reason(errno)));
  }
  MappedFile mapped;
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = size;
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace banyan
