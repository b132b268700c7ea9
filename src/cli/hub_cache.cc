// SPDX-License-Identifier: Apache-2.0
#include "cli/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "base/printable.h"

namespace banyan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUsualQuant = "q4_k_m";

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before any thread
  return value == nullptr ? "" : value;
}

std::string first_of(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return "";
}

// `folder`/`name`, or nothing where there is no folder.
std::string below(const std::string& folder, const std::string& name) {
  return folder.empty() ? "" : folder + "/" + name;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

struct HubName {
  std::string user;
  std::string model;
  std::string quant;  // in small letters; empty: not said
};

std::optional<HubName> parse(const std::string& text) {
  const auto is_word = [](const std::string& word) {
    const auto fits = [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
    };
    return !word.empty() && word != "." && word != ".." && std::ranges::all_of(word, fits);
  };
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const size_t colon = std::min(text.find(':', slash), text.size());
  HubName name{text.substr(0, slash), text.substr(slash + 1, colon - slash - 1), ""};
  if (!is_word(name.user) || !is_word(name.model)) return std::nullopt;
  if (colon == text.size()) return name;
  name.quant = lower(text.substr(colon + 1));
  return is_word(name.quant) ? std::optional(name) : std::nullopt;
}

// Whether `word` stands in `text` by itself: "q4_k" is not in "x-q4_k_m.gguf".
bool has_word(const std::string& text, std::string_view word) {
  const auto is_border = [&](size_t at) {
    return at >= text.size() ||
           (std::isalnum(static_cast<unsigned char>(text[at])) == 0 && text[at] != '_');
  };
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    if ((at == 0 || is_border(at - 1)) && is_border(at + word.size())) return true;
  }
  return false;
}

// A file with the weights of a language model, and of shards the first.
bool is_model_file(const std::string& name) {
  if (!name.ends_with(".gguf") || name.starts_with("mmproj")) return false;
  const size_t of = name.rfind("-of-");
  return of == std::string::npos || name.substr(0, of).ends_with("-00001");
}

// GGUF files in a folder and the folders in it, sorted, whose names begin with `prefix`.
std::vector<std::string> gguf_files(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator walk(folder, fs::directory_options::skip_permission_denied,
                                        error);
  for (; !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
    if (walk.depth() > 1) walk.disable_recursion_pending();
    const std::string name = walk->path().filename().string();
    if (name.starts_with(prefix) && is_model_file(name)) files.push_back(walk->path().string());
  }
  std::ranges::sort(files);
  return files;
}

std::optional<std::string> choose(const std::vector<std::string>& files, const std::string& quant) {
  const auto named = [&](std::string_view word) -> std::optional<std::string> {
    for (const std::string& file : files) {
      if (has_word(lower(fs::path(file).filename().string()), word)) return file;
    }
    return std::nullopt;
  };
  if (!quant.empty()) return named(quant);
  if (auto usual = named(kUsualQuant)) return usual;
  if (files.empty()) return std::nullopt;
  return files.front();
}

// The snapshot that refs/main names, else the newest.
std::string snapshot_of(const std::string& repository) {
  std::string revision;
  std::ifstream(repository + "/refs/main") >> revision;
  std::error_code error;
  const std::string snapshots = repository + "/snapshots";
  const bool is_plain = !revision.empty() && revision.find('/') == std::string::npos;
  if (is_plain && fs::is_directory(snapshots + "/" + revision, error)) {
    return snapshots + "/" + revision;
  }
  std::string newest;
  fs::file_time_type newest_time = fs::file_time_type::min();
  for (const auto& entry : fs::directory_iterator(snapshots, error)) {
    const auto time = entry.last_write_time(error);
    if (error || time < newest_time) continue;
    newest_time = time;
    newest = entry.path().string();
  }
  return newest;
}

}  // namespace

HubCaches hub_caches() {
  const std::string cache =
      first_of({environment("XDG_CACHE_HOME"), below(environment("HOME"), ".cache")});
  const std::string home = first_of({environment("HF_HOME"), below(cache, "huggingface")});
  return {first_of({environment("HF_HUB_CACHE"), environment("HUGGINGFACE_HUB_CACHE"),
                    below(home, "hub")}),
          first_of({environment("LLAMA_CACHE"), below(cache, "llama.cpp")})};
}

Result<std::string> find_hub_model(const std::string& name, const HubCaches& caches) {
  const auto parsed = parse(name);
  if (!parsed) {
    return bad_input(
        fmt::format("-hf is \"{}\", expected USER/MODEL or USER/MODEL:QUANT", printable(name)));
  }
  std::vector<std::string> places{caches.hub, caches.llama_cpp};
  std::erase(places, "");
  if (places.empty()) {
    return bad_input(fmt::format(
        "-hf {}: neither HOME nor XDG_CACHE_HOME is set, so there is no local cache to look into; "
        "set one, HF_HUB_CACHE or LLAMA_CACHE, or give a file or folder with -m",
        name));
  }
  const std::string repository =
      below(caches.hub, fmt::format("models--{}--{}", parsed->user, parsed->model));
  const std::string snapshot = repository.empty() ? "" : snapshot_of(repository);
  std::vector<std::string> files;
  if (!snapshot.empty()) files = gguf_files(snapshot, "");
  if (auto file = choose(files, parsed->quant)) return *file;
  const auto more = gguf_files(caches.llama_cpp, parsed->user + "_" + parsed->model + "_");
  if (auto file = choose(more, parsed->quant)) return *file;
  std::error_code ignored;
  const bool has_folder = !snapshot.empty() && fs::exists(snapshot + "/config.json", ignored);
  if (has_folder && parsed->quant.empty()) return snapshot;

  files.insert(files.end(), more.begin(), more.end());
  if (!files.empty() || has_folder) {
    return bad_input(fmt::format(
        "-hf {}: the model is in the local cache, but not as {}{}", name, parsed->quant,
        files.empty() ? "; leave :QUANT away" : fmt::format("; there is {}", files.front())));
  }
  return bad_input(
      fmt::format("-hf {}: it is not in {}, and nothing is fetched from a hub here; `hf download "
                  "{}/{}` brings it where there is one, or give a file or folder with -m",
                  name, fmt::join(places, " or "), parsed->user, parsed->model));
}

}  // namespace banyan
