// SPDX-License-Identifier: Apache-2.0
#include "files/product_paths_file.h"

#include <fmt/format.h>

#include <cmath>

#include "base/json.h"

namespace banyan {
namespace {

using Json = nlohmann::ordered_json;

std::string label(int row_class) {
  const int64_t begin = kRowClassBegin[row_class];
  if (row_class + 1 == kRowClasses) return fmt::format("{}+", begin);
  const int64_t last = kRowClassBegin[row_class + 1] - 1;
  return last == begin ? fmt::format("{}", begin) : fmt::format("{}-{}", begin, last);
}

// Reads one cell; false if it is none.
bool read_cell(const nlohmann::json& cell, ProductPath& path,
               std::array<double, kProductPaths>& gflops) {
  if (!cell.is_object() || !cell.contains("path") || !cell.contains("gflops")) return false;
  bool known = false;
  for (int p = 0; p < kProductPaths; ++p) {
    const std::string_view word = name(ProductPath{static_cast<uint8_t>(p)});
    if (cell["path"] == word) {
      path = ProductPath{static_cast<uint8_t>(p)};
      known = true;
    }
    const auto rate = cell["gflops"].find(word);
    if (rate != cell["gflops"].end() && rate->is_number()) gflops[p] = rate->get<double>();
  }
  return known;
}

}  // namespace

std::string write_product_paths(const MeasuredPaths& measured, const PathsKey& key) {
  Json tables = Json::object();
  for (int w = 0; w < kWeightClasses; ++w) {
    Json& table = tables[std::string(name(WeightClass{static_cast<uint8_t>(w)}))];
    for (int r = 0; r < kRowClasses; ++r) {
      Json gflops = Json::object();
      for (int p = 0; p < kProductPaths; ++p) {
        const double rate = measured.gflops[w][r][p];
        if (rate <= 0) continue;
        gflops[std::string(name(ProductPath{static_cast<uint8_t>(p)}))] =
            std::round(rate * 10) / 10;
      }
      table[label(r)] = {{"path", name(measured.paths.path[w][r])}, {"gflops", gflops}};
    }
  }
  const Json document = {{"cpu", key.cpu},
                         {"isa", key.isa},
                         {"version", key.version},
                         {"threads", key.threads},
                         {"paths", tables}};
  return document.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<MeasuredPaths> read_product_paths(std::string_view text, const std::string& name_of_file,
                                         const PathsKey& key) {
  const auto wrong = [&](std::string_view what) {
    return bad_input(fmt::format("'{}': {}", name_of_file, what));
  };
  const auto document = parse_json(text);
  if (!document) return wrong(document.error().message);
  if (!document->is_object()) return wrong("it is no object");
  const nlohmann::json expected = {
      {"cpu", key.cpu}, {"isa", key.isa}, {"version", key.version}, {"threads", key.threads}};
  for (const auto& [word, value] : expected.items()) {
    if (document->value(word, nlohmann::json()) != value) {
      return wrong(fmt::format("its {} is another", word));
    }
  }
  MeasuredPaths measured;
  for (int w = 0; w < kWeightClasses; ++w) {
    for (int r = 0; r < kRowClasses; ++r) {
      const auto weights = std::string(name(WeightClass{static_cast<uint8_t>(w)}));
      const nlohmann::json::json_pointer place(fmt::format("/paths/{}/{}", weights, label(r)));
      if (!document->contains(place) ||
          !read_cell((*document)[place], measured.paths.path[w][r], measured.gflops[w][r])) {
        return wrong(fmt::format("it has no path for {} with {} rows", weights, label(r)));
      }
    }
  }
  return measured;
}

}  // namespace banyan
