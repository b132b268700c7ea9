// SPDX-License-Identifier: Apache-2.0
#include "files/request_trace_file.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <optional>

#include "base/buffer.h"
#include "base/json.h"
#include "base/printable.h"
#include "files/integer_field.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr std::string_view kAzureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr size_t kMostLineBytes = 1 << 20;     // more than the ids of the longest prompt take
constexpr size_t kMostValues = 1 << 17;        // of a line
constexpr int64_t kMostMs = int64_t{1} << 53;  // exact as a double

// --- fields

// All of `text` as a number of decimal digits.
std::optional<int64_t> digits(std::string_view text) {
  uint64_t value = 0;  // takes no sign
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value > INT64_MAX) return std::nullopt;
  return static_cast<int64_t>(value);
}

// Milliseconds since 1970 of a time such as 2023-11-16 18:15:46.6805900.
std::optional<double> parse_time(std::string_view text) {
  // Places of the numbers and what stands behind them.
  constexpr std::array<size_t, 6> kBegin = {0, 5, 8, 11, 14, 17};
  constexpr std::string_view kBehind = "-- ::";
  constexpr size_t kSeconds = 19;
  if (text.size() < kSeconds) return std::nullopt;
  std::array<int, 6> part{};
  for (size_t i = 0; i < part.size(); ++i) {
    const size_t size = i == 0 ? 4 : 2;
    const auto value = digits(text.substr(kBegin[i], size));
    if (!value || (i < kBehind.size() && text[kBegin[i] + size] != kBehind[i])) return std::nullopt;
    part[i] = static_cast<int>(*value);
  }
  const auto [year, month, day, hour, minute, second] = part;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  double fraction = 0;
  if (text.size() > kSeconds) {
    constexpr size_t kMostDigits = 9;
    const std::string_view behind = text.substr(kSeconds + 1);
    const auto value = digits(behind);
    if (text[kSeconds] != '.' || !value || behind.size() > kMostDigits) return std::nullopt;
    fraction = static_cast<double>(*value);
    for (size_t i = 0; i < behind.size(); ++i) fraction /= 10;
  }
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return (((days * 24.0 + hour) * 60 + minute) * 60 + second) * 1e3 + fraction * 1e3;
}

// --- lines. arrival_ms is the time as it stands there.

Result<TraceRequest> read_mooncake_line(std::string_view text) {
  const auto line = parse_json(text, kMostValues);
  if (!line) return line.error();
  if (!line->is_object()) return bad_input("it is no JSON object");
  const auto field = [&](const char* name, int64_t least, int64_t most) -> Result<int64_t> {
    const auto found = line->find(name);
    if (found == line->end()) return bad_input(fmt::format("{} is missing", name));
    return in_range(name, *found, least, most);
  };
  const auto ms = field("timestamp", 0, kMostMs);
  if (!ms) return ms.error();
  const auto prompt = field("input_length", 1, kMostTraceTokens);
  if (!prompt) return prompt.error();
  const auto output = field("output_length", 1, kMostTraceTokens);
  if (!output) return output.error();
  const json ids = line->value("hash_ids", json());
  const auto n_blocks = static_cast<size_t>((*prompt - 1) / kTraceBlockTokens + 1);
  if (!ids.is_array() || ids.size() != n_blocks) {
    return bad_input(fmt::format(
        "hash_ids has {} entries, expected {}: one for each {} of the {} tokens of input_length",
        ids.is_array() ? ids.size() : 0, n_blocks, kTraceBlockTokens, *prompt));
  }
  TraceRequest request{
      static_cast<double>(*ms), static_cast<int32_t>(*prompt), static_cast<int32_t>(*output), {}};
  request.blocks.reserve(n_blocks);
  for (const json& entry : ids) {
    const auto id = in_range("an entry of hash_ids", entry, 0, INT64_MAX);
    if (!id) return id.error();
    request.blocks.push_back(static_cast<uint64_t>(*id));
  }
  return request;
}

Result<TraceRequest> read_azure_line(std::string_view text) {
  const size_t first = text.find(',');
  const size_t second = first == text.npos ? text.npos : text.find(',', first + 1);
  if (second == text.npos) {
    return bad_input(fmt::format("it is \"{}\", expected {}", printable(text, 40), kAzureHeader));
  }
  const auto ms = parse_time(text.substr(0, first));
  if (!ms) {
    return bad_input(
        fmt::format("TIMESTAMP is \"{}\", expected a time such as 2023-11-16 18:15:46.6805900",
                    printable(text.substr(0, first), 40)));
  }
  const auto field = [&](const char* name, std::string_view word) {
    return in_range(name, fmt::format("\"{}\"", word), digits(word), 1, kMostTraceTokens);
  };
  const auto prompt = field("ContextTokens", text.substr(first + 1, second - first - 1));
  if (!prompt) return prompt.error();
  const auto output = field("GeneratedTokens", text.substr(second + 1));
  if (!output) return output.error();
  return TraceRequest{*ms, static_cast<int32_t>(*prompt), static_cast<int32_t>(*output), {}};
}

// The first line of `text` without its end, which may be that of Windows; takes it off.
std::string_view take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

Result<std::vector<TraceRequest>> read_request_trace(std::string_view text,
                                                     const std::string& name) {
  size_t number = 1;  // of the line
  const auto wrong = [&](std::string_view what) {
    return bad_input(fmt::format("{}: line {}: {}", name, number, what));
  };
  auto* read_line = read_mooncake_line;
  if (!text.starts_with('{')) {
    const std::string_view header = take_line(text);
    if (header != kAzureHeader) {
      return wrong(fmt::format("it is \"{}\", expected {} (Azure) or a JSON object (Mooncake)",
                               printable(header, 40), kAzureHeader));
    }
    read_line = read_azure_line;
    ++number;
  }
  std::vector<TraceRequest> requests;
  double first_ms = 0;
  for (; !text.empty(); ++number) {
    const std::string_view line = take_line(text);
    if (line.empty()) return wrong("it is empty, expected a request");
    if (line.size() > kMostLineBytes) {
      return wrong(fmt::format("it has more than {} bytes", kMostLineBytes));
    }
    auto request = read_line(line);
    if (!request) return wrong(request.error().message);
    if (requests.empty()) first_ms = request->arrival_ms;
    request->arrival_ms -= first_ms;
    if (!requests.empty() && request->arrival_ms < requests.back().arrival_ms) {
      return wrong("its time is before that of the line above, expected requests as they came");
    }
    requests.push_back(*std::move(request));
  }
  if (requests.empty()) return bad_input(fmt::format("{}: it has no request", name));
  return requests;
}

Result<std::vector<TraceRequest>> open_request_trace(const std::string& path) {
  const auto file = MappedFile::open(path);
  if (!file) return file.error();
  const auto bytes = file->bytes();
  return read_request_trace({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace banyan
