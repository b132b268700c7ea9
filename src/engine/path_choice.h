// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which paths products take on this machine: measured at the first start, then kept in a file, so
// that every later run on the machine goes the same ways.

#include <optional>
#include <string>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "files/product_paths_file.h"
#include "tensor/cpu/product_paths.h"

namespace banyan {

struct PathChoice {
  std::optional<MeasuredPaths> measured;  // none: the default paths are taken
  bool was_kept = false;                  // it was read, not measured now
  std::string file;                       // where it is kept
  std::string note;                       // what a person should know; usually empty

  std::optional<ProductPaths> paths() const {
    return measured ? std::optional(measured->paths) : std::nullopt;
  }
};

// What a measurement on `pool` with instructions of `isa` at most would hold for.
PathsKey paths_key(const ThreadPool& pool, Isa isa);

// What the file of this key in `cache_folder` says. Where there is none, or a damaged one or
// another machine's, or with `measure_again`: measures (measure_paths()) and writes it, complete or
// not at all. The default paths where it cannot be written, since another run would find others, or
// where `cache_folder` is "". Safe beside other processes that do the same: the first to write
// decides.
PathChoice choose_paths(ThreadPool& pool, Isa isa, const std::string& cache_folder,
                        bool measure_again = false);

}  // namespace banyan
