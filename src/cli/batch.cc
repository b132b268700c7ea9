// SPDX-License-Identifier: Apache-2.0
// banyan run --batch: the requests of a file, their results in another. Lines are read as the
// engine takes them up, so that memory does not grow with the file.
#include <fmt/format.h>

#include <ctime>
#include <deque>
#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "cli/cli.h"
#include "openai/batch_line.h"

namespace banyan {
namespace {

// The next line without its end, cut where it is longer than any request may be. False if there is
// none. `ended`: whether there was an end.
bool read_line(std::ifstream& file, std::string& line, bool* ended = nullptr) {
  constexpr int kEnd = std::char_traits<char>::eof();
  std::streambuf& in = *file.rdbuf();
  line.clear();
  int c = in.sbumpc();
  if (c == kEnd) return false;
  for (; c != kEnd && c != '\n'; c = in.sbumpc()) {
    if (line.size() <= kMostLineBytes) line.push_back(static_cast<char>(c));
  }
  if (ended != nullptr) *ended = c == '\n';
  return true;
}

Result<size_t> count_lines(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    return bad_input(fmt::format("{}: cannot be read; is the path right?", path));
  }
  size_t n = 0;
  for (std::string line; read_line(file, line);) ++n;
  return n;
}

// What became of the lines so far.
struct Tally {
  size_t done = 0;
  size_t failed = 0;
  size_t kept = 0;  // of `done`, from an earlier run
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t generated = 0;
};

// Reads the results that `out` has already beside the lines that they belong to, and cuts off one
// that is not complete. Leaves `in` at the first line without a result.
Result<void> resume(std::ifstream& in, const std::string& in_path, const std::string& out_path,
                    int32_t vocabulary_size, Tally& tally) {
  std::ifstream out(out_path, std::ios::binary);
  if (!out) return {};  // a first run
  uint64_t bytes = 0;
  std::string line;
  std::string result;
  for (bool ended = false; read_line(out, result, &ended);) {
    const auto refuse = [&](const std::string& what) {
      return bad_input(fmt::format("{}: line {} {}; give another file with -o, or remove this one",
                                   out_path, tally.done + 1, what));
    };
    if (!ended && may_begin_result(result)) break;
    const auto read = ended ? read_batch_result(result) : std::nullopt;
    if (!read) return refuse("is no result of a batch");
    if (!read_line(in, line)) return refuse(fmt::format("answers no line of {}", in_path));
    if (read->custom_id != read_batch_line(line, vocabulary_size).custom_id) {
      return refuse(fmt::format("has another custom_id than that of {}", in_path));
    }
    bytes += result.size() + 1;
    ++tally.done;
    ++tally.kept;
    tally.failed += read->failed ? 1 : 0;
  }
  std::error_code error;
  std::filesystem::resize_file(out_path, bytes, error);
  if (error) return failed(fmt::format("{}: {}", out_path, error.message()));
  return {};
}

// A line that was read, until its result is written.
struct Pending {
  size_t number;
  BatchLine line;
  size_t n_samples = 0;
  RequestId id = 0;         // 0: not with the engine (any more)
  std::string result = "";  // empty while it is
};

class Batch {
 public:
  Batch(const CommonOptions& options, Engine& engine, std::ifstream& in, std::ofstream& out,
        size_t total, Tally& tally)
      : engine_(engine),
        in_(in),
        out_(out),
        total_(total),
        tally_(tally),
        progress_(log_level(options)) {}

  // False if it was interrupted, or if results cannot be written.
  bool run() {
    const InterruptGuard interrupt;
    std::vector<Completion> finished;
    for (;;) {
      read_ahead();
      if (!write_done()) return false;
      if (pending_.empty()) return true;
      if (InterruptGuard::take()) return false;
      finished.clear();
      engine_.step(finished);
      for (Completion& completion : finished) take(completion);
      show_progress();
    }
  }

 private:
  // So many lines that a step has no rows for more.
  void read_ahead() {
    const auto most = static_cast<size_t>(engine_.options().max_rows);
    for (std::string text; pending_.size() < most && read_line(in_, text);) {
      const size_t number = tally_.done + pending_.size() + 1;
      begin(pending_.emplace_back(
          Pending{number, read_batch_line(text, engine_.tokenizer().size())}));
    }
  }

  void begin(Pending& pending) {
    if (const auto* error = std::get_if<ApiError>(&pending.line.asked))
      return fail(pending, *error);
    auto& asked = std::get<ApiRequest>(pending.line.asked);
    auto request = engine_request(engine_, asked);
    if (!request) return fail(pending, api_error(request.error()));
    request->salt = salts_.of(asked.cache_salt);
    pending.n_samples = request->samples();
    const auto id = engine_.submit(*std::move(request), {.on_token = &on_token_});
    if (!id) return fail(pending, api_error(id.error()));
    pending.id = *id;
    asked.messages.clear();  // read by now
    asked.prompt = {};
  }

  void take(Completion& completion) {
    const auto found = std::ranges::find(pending_, completion.id, &Pending::id);
    if (!completion.reply) return fail(*found, api_error(completion.reply.error()));
    const Reply& reply = *completion.reply;
    tally_.prompt_tokens += reply.prompt_tokens;
    tally_.cached_tokens += reply.cached_tokens;
    for (const Sample& sample : reply.samples) {
      if (found->n_samples > 1) tally_.generated += sample.tokens.size();
    }
    const Json body = reply_json(engine_, std::get<ApiRequest>(found->line.asked), reply,
                                 std::to_string(found->number), std::time(nullptr));
    found->id = 0;
    found->result = batch_result(found->number, found->line.custom_id, 200, to_line(body));
  }

  void fail(Pending& pending, const ApiError& error) {
    ++tally_.failed;
    pending.id = 0;
    pending.result = batch_result(pending.number, pending.line.custom_id, error.status,
                                  to_line(error_json(error)));
  }

  // Results in front of which none is missing.
  bool write_done() {
    while (!pending_.empty() && !pending_.front().result.empty()) {
      const std::string& result = pending_.front().result;
      out_.write(result.data(), static_cast<std::streamsize>(result.size())).flush();
      if (!out_) return false;
      pending_.pop_front();
      ++tally_.done;
    }
    return true;
  }

  void show_progress() {
    progress_.show([&] {
      return fmt::format("{} of {} requests done, {:.1f} tokens/s", tally_.done, total_,
                         per_second(static_cast<double>(tally_.generated), ms_since(start_ns_)));
    });
  }

  Engine& engine_;
  std::ifstream& in_;
  std::ofstream& out_;
  size_t total_;
  Tally& tally_;
  std::deque<Pending> pending_;
  int64_t start_ns_ = now_ns();
  SlowProgress progress_;
  SaltNumbers salts_;
  // Counts the tokens of single answers as they come.
  struct Count {
    Tally& tally;
    bool operator()(TokenId token, const std::string& /*text*/) {
      tally.generated += token == kNoToken ? 0 : 1;
      return true;
    }
  } count_{tally_};
  FunctionRef<bool(TokenId, const std::string&)> on_token_ = count_;
};

void summarize(const CommonOptions& o, const Engine& engine, const Tally& tally, double ms) {
  const double rate = per_second(static_cast<double>(tally.generated), ms);
  if (o.json) {
    print_json({{"requests", tally.done},
                {"failed", tally.failed},
                {"kept", tally.kept},
                {"usage",
                 {{"prompt_tokens", tally.prompt_tokens},
                  {"completion_tokens", tally.generated},
                  {"prompt_tokens_details", {{"cached_tokens", tally.cached_tokens}}}}},
                {"seconds", ms / 1e3},
                {"tokens_per_second", rate},
                {"compute", o.compute},
                {"memory", memory_json(engine.memory())}});
  }
  log_line(LogLevel::kInfo, log_level(o),
           fmt::format("{} requests, {} failed, {} done before; prompts of {} tokens, {} reused; "
                       "{} tokens at {:.1f}/s in {:.1f} s",
                       tally.done, tally.failed, tally.kept, tally.prompt_tokens,
                       tally.cached_tokens, tally.generated, rate, ms / 1e3));
  log_line(LogLevel::kInfo, log_level(o), memory_sentence(engine.memory()));
}

}  // namespace

Result<int> run_batch(const CommonOptions& o, const std::string& in_path,
                      const std::string& out_path) {
  const auto total = count_lines(in_path);
  if (!total) return total.error();
  std::error_code error;
  if (std::filesystem::equivalent(in_path, out_path, error)) {
    return bad_input(fmt::format("--batch and -o are the same file, {}; give -o another", in_path));
  }
  auto engine = open_engine(o);
  if (!engine) return engine.error();
  std::ifstream in(in_path, std::ios::binary);
  Tally tally;
  BANYAN_TRY(resume(in, in_path, out_path, (*engine)->tokenizer().size(), tally));
  std::ofstream out(out_path, std::ios::binary | std::ios::app);
  if (!out) return bad_input(fmt::format("{}: cannot be written; is the path right?", out_path));
  const int64_t start = now_ns();
  const bool complete = Batch(o, **engine, in, out, *total, tally).run();
  if (!out) return failed(fmt::format("{}: cannot be written; is the disk full?", out_path));
  if (!complete) {
    return failed(fmt::format("interrupted after {} of {} requests; the same command goes on there",
                              tally.done, *total));
  }
  summarize(o, **engine, tally, ms_since(start));
  return tally.failed > 0 ? 1 : 0;
}

}  // namespace banyan
