// SPDX-License-Identifier: Apache-2.0
#include "engine/path_choice.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/clock.h"
#include "tensor/cpu/measure_paths.h"
#include "tensor/cpu/products.h"

namespace banyan {
namespace {

namespace fs = std::filesystem;

// Names of files that tell keys apart; versions take each other's place.
std::string file_name(const PathsKey& key) {
  std::string name = fmt::format("paths-{}-{}-{}t", key.cpu, key.isa, key.threads);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  }
  return name + ".json";
}

// Nothing where there is no file.
std::optional<Result<MeasuredPaths>> read(const std::string& file, const PathsKey& key,
                                          const Products& products) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  const std::string text((std::istreambuf_iterator<char>(stream)), {});
  Result<MeasuredPaths> measured = read_product_paths(text, file, key);
  if (measured && !products.may_take(measured->paths)) {
    return bad_input(fmt::format("'{}': it has a path that is not to be taken", file));
  }
  return measured;
}

// A file that takes its place when it is complete.
class NewFile {
 public:
  explicit NewFile(const std::string& file)
      : file_(file), temporary_(fmt::format("{}.{}.{}", file, ::getpid(), now_ns())) {
    std::error_code error;
    fs::create_directories(fs::path(file).parent_path(), error);
    errno = 0;
    stream_.open(temporary_, std::ios::binary);
    if (!stream_) reason_ = error ? error : std::error_code(errno, std::generic_category());
  }
  ~NewFile() {
    std::error_code ignored;
    fs::remove(temporary_, ignored);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  // std::errc::file_exists if there is one that it may not replace.
  std::error_code commit(const std::string& text, bool replace) {
    errno = 0;
    stream_ << text;
    stream_.close();
    if (!stream_) return reason_ = std::error_code(errno, std::generic_category());
    if (!replace) {
      fs::create_hard_link(temporary_, file_, reason_);
      if (!reason_ || reason_ == std::errc::file_exists) return reason_;  // else: no links here
    }
    fs::rename(temporary_, file_, reason_);
    return reason_;
  }
  const std::error_code& reason() const { return reason_; }

 private:
  std::string file_;
  std::string temporary_;
  std::ofstream stream_;
  std::error_code reason_;
};

std::string not_kept(const std::string& folder, const std::error_code& reason) {
  return fmt::format(
      "{} cannot be written ({}), so the fastest paths of products are not measured and the "
      "default "
      "ones are taken; set XDG_CACHE_HOME to a folder that can be written",
      folder, reason.message());
}

}  // namespace

PathsKey paths_key(const ThreadPool& pool, Isa isa) {
  const bool is_avx512 = isa >= Isa::kAvx512;
  return {fmt::format("{} {:x}", cpu_name(), cpu_signature()),
          fmt::format("{}{}{}", name(isa), is_avx512 && has_avx512_bf16() ? " bf16" : "",
                      is_avx512 && has_avx512_vnni() ? " vnni" : ""),
          product_paths_version(), pool.size()};
}

PathChoice choose_paths(ThreadPool& pool, Isa isa, const std::string& cache_folder,
                        bool measure_again) {
  PathChoice choice;
  if (cache_folder.empty()) return choice;
  const PathsKey key = paths_key(pool, isa);
  const Products products(pool, isa, Compute::kAuto);
  choice.file = cache_folder + "/" + file_name(key);
  const auto keep = [&] {
    const auto kept = read(choice.file, key, products);
    if (kept && *kept) {
      choice.measured = **kept;
      choice.was_kept = true;
    } else if (kept) {
      choice.note = kept->error().message + "; the fastest paths of products are measured again";
    }
    return choice.was_kept;
  };
  if (!measure_again && keep()) return choice;
  const bool replace = measure_again || !choice.note.empty();
  NewFile file(choice.file);
  if (file.reason()) {
    choice.note = not_kept(cache_folder, file.reason());
    return choice;
  }
  const MeasuredPaths measured = measure_paths(pool, isa);
  if (const auto error = file.commit(write_product_paths(measured, key), replace)) {
    if (error == std::errc::file_exists && keep()) return choice;  // another process was first
    choice.note = not_kept(cache_folder, error);
    return choice;
  }
  choice.measured = measured;
  return choice;
}

}  // namespace banyan
