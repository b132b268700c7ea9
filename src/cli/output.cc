// SPDX-License-Identifier: Apache-2.0
// What reaches the terminal: JSON on stdout, sentences and progress on stderr.
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "base/bytes.h"
#include "base/clock.h"
#include "cli/cli.h"

namespace banyan {
namespace {

// A signal handler can reach nothing but a global.
std::atomic<bool> interrupt_came{false};
struct sigaction previous_action;

uint64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return uint64_t(usage.ru_maxrss) * 1024;
}

}  // namespace

void print_json(const Json& json) {
  const std::string text = to_line(json);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

void log_line(LogLevel said, LogLevel level, const std::string& text) {
  if (said <= level) fmt::print(stderr, "banyan: {}\n", text);
}

Result<std::string> read_text_file(const std::string& path) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr)
    return bad_input(fmt::format("{}: cannot be read; is the path right?", path));
  std::string text;
  char buffer[1 << 16];
  size_t n = 0;
  while ((n = std::fread(buffer, 1, sizeof(buffer), file)) > 0) text.append(buffer, n);
  const bool broken = std::ferror(file) != 0;
  if (file != stdin) std::fclose(file);
  if (broken) return bad_input(fmt::format("{}: cannot be read; is it a file?", path));
  return text;
}

std::string memory_sentence(const MemoryUse& use) {
  return fmt::format(
      "memory: weights {} (mapped), KV {} of {}, activations {}, scratch {}{}; peak resident {}",
      format_bytes(use.weights), format_bytes(use.kv_peak), format_bytes(use.kv_budget),
      format_bytes(use.activations), format_bytes(use.scratch),
      use.panels_most == 0 ? ""
                           : fmt::format(", panels {} of {}", format_bytes(use.panels),
                                         format_bytes(use.panels_most)),
      format_bytes(peak_resident_bytes()));
}

Json memory_json(const MemoryUse& use) {
  return {{"weights", use.weights},
          {"kv_budget", use.kv_budget},
          {"kv_peak", use.kv_peak},
          {"activations", use.activations},
          {"scratch", use.scratch},
          {"panel_cache", use.panels},
          {"peak_resident", peak_resident_bytes()}};
}

double per_second(double count, double ms) { return ms > 0 ? count / ms * 1e3 : 0.0; }

ProgressLine::ProgressLine(bool enabled) : enabled_(enabled && isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::show(const std::string& text) {
  if (!enabled_) return;
  fmt::print(stderr, "\r\x1b[K{}", text);
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

SlowProgress::SlowProgress(LogLevel level)
    : level_(level), line_(level >= LogLevel::kInfo), shown_ns_(now_ns()) {}

void SlowProgress::show(FunctionRef<std::string()> text) {
  const bool on_terminal = isatty(STDERR_FILENO) != 0;
  const double every_ms = on_terminal ? 200 : 60'000;
  if (ms_since(shown_ns_) < every_ms) return;
  shown_ns_ = now_ns();
  if (on_terminal) {
    line_.show(text());
  } else {
    log_line(LogLevel::kInfo, level_, text());
  }
}

InterruptGuard::InterruptGuard() {
  interrupt_came = false;
  struct sigaction action {};
  action.sa_handler = [](int) { interrupt_came = true; };
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a read from the terminal ends, so that the question can be answered.
  sigaction(SIGINT, &action, &previous_action);
}

InterruptGuard::~InterruptGuard() { sigaction(SIGINT, &previous_action, nullptr); }

bool InterruptGuard::take() { return interrupt_came.exchange(false); }

}  // namespace banyan
