// SPDX-License-Identifier: Apache-2.0
// Policies against what they promise, written plainly over texts that are read anew each time.
#include "engine/search_policies.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include "engine/evaluate.h"
#include "engine/search_drawing.h"
#include "engine/testing_tiny_engine.h"

namespace banyan {
namespace {

using Tokens = std::vector<TokenId>;
constexpr TokenId kEnd = 2;  // of the tiny model

Search open_search(Engine& engine, const Tokens& prompt) {
  auto search = Search::open(engine, prompt);
  EXPECT_TRUE(search.has_value()) << search.error().message;
  return *std::move(search);
}

// log softmax in double of what the model says behind a text, read from its beginning.
std::vector<double> logprobs_behind(Engine& engine, const Tokens& text) {
  const int last = static_cast<int>(text.size()) - 1;
  const std::vector<float> logits = evaluate_logits(engine, text, {{last}})->front().logits;
  const double max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  std::vector<double> logprobs;
  for (const float logit : logits) logprobs.push_back(logit - max - std::log(sum));
  return logprobs;
}

struct Text {
  Tokens tokens;  // behind the prompt, an end token too
  double sum = 0;
  double score = 0;
};

// Beam search as Hugging Face describes it: the 2 x width best continuations of all beams, of which
// the ones that end count among the first width, and the best width others go on.
std::vector<Text> plain_beam_search(Engine& engine, const Tokens& prompt, const BeamParams& params,
                                    bool ignore_eos) {
  const size_t width = params.width;
  std::vector<Text> beams(1);
  std::vector<Text> done;
  const auto by_score = [](const Text& a, const Text& b) { return a.score > b.score; };
  for (int step = 1; step <= params.max_tokens; ++step) {
    std::vector<Text> next;
    for (const Text& beam : beams) {
      Tokens text = prompt;
      text.insert(text.end(), beam.tokens.begin(), beam.tokens.end());
      const std::vector<double> logprobs = logprobs_behind(engine, text);
      for (TokenId token = 0; token < std::ssize(logprobs); ++token) {
        if (token == kEnd && ignore_eos) continue;
        Text longer = beam;
        longer.tokens.push_back(token);
        longer.sum += logprobs[token];
        longer.score = longer.sum / std::pow(step, double{params.length_penalty});
        next.push_back(std::move(longer));
      }
    }
    std::ranges::stable_sort(next, by_score);  // of one length: by their sums
    next.resize(2 * width);
    beams.clear();
    for (size_t rank = 0; rank < next.size() && beams.size() < width; ++rank) {
      if (next[rank].tokens.back() != kEnd) {
        beams.push_back(next[rank]);
      } else if (rank < width) {
        done.push_back(next[rank]);
      }
    }
    std::ranges::stable_sort(done, by_score);
    if (done.size() > width) done.resize(width);
    if (done.size() == width && beams.front().score <= done.back().score) return done;
  }
  done.insert(done.end(), beams.begin(), beams.end());
  std::ranges::stable_sort(done, by_score);
  done.resize(width);
  return done;
}

void expect_beams(const std::vector<SearchChoice>& found, const std::vector<Text>& want) {
  ASSERT_EQ(found.size(), want.size());
  for (size_t i = 0; i < found.size(); ++i) {
    Tokens tokens = want[i].tokens;
    if (tokens.back() == kEnd) tokens.pop_back();
    EXPECT_EQ(found[i].tokens, tokens) << i;
    EXPECT_NEAR(found[i].score, want[i].score, 1e-5) << i;
  }
}

TEST(Beams, AreThoseOfAPlainSearchThatReadsEveryTextAnew) {
  for (const int width : {1, 3, 8}) {
    for (const float penalty : {0.0F, 1.0F, -0.5F}) {
      for (const bool ignore_eos : {false, true}) {
        const auto engine = open();
        const Tokens prompt = tokens_from(width * 10, 30);
        BeamParams params;
        params.width = width;
        params.max_tokens = 12;
        params.length_penalty = penalty;
        Search search = open_search(*engine, prompt);
        const auto found = beam_search(search, params, ignore_eos);
        ASSERT_TRUE(found.has_value()) << found.error().message;
        expect_beams(*found, plain_beam_search(*engine, prompt, params, ignore_eos));
        engine->tree().check_integrity();
      }
    }
  }
}

TEST(Beams, ComeEndedToo) {
  // Plain sums favour texts that end soon, which a model that has learned nothing does rarely.
  const auto engine = open();
  int n_ended = 0;
  for (const int first : {0, 7, 25, 27, 29, 32, 39}) {
    const Tokens prompt = tokens_from(first, 12);
    BeamParams params;
    params.width = 3;
    params.max_tokens = 10;
    params.length_penalty = 0;
    Search search = open_search(*engine, prompt);
    const auto found = *beam_search(search, params, false);
    const auto want = plain_beam_search(*engine, prompt, params, false);
    expect_beams(found, want);
    for (const Text& text : want) n_ended += text.tokens.back() == kEnd ? 1 : 0;
  }
  EXPECT_GE(n_ended, 5);
}

TEST(Beams, StandInTheTreeAndShareIt) {
  const auto engine = open();
  const Tokens prompt = tokens_from(1, 200);
  BeamParams params;
  params.max_tokens = 20;
  Search search = open_search(*engine, prompt);
  const auto found = *beam_search(search, params, true);
  ASSERT_EQ(found.size(), 8U);
  std::set<Tokens> distinct;
  for (const SearchChoice& choice : found) {
    distinct.insert(choice.tokens);
    ASSERT_TRUE(choice.node.has_value());
    EXPECT_EQ(*search.path(*choice.node), choice.tokens);
    // The last token has no part in it yet.
    EXPECT_GE(*search.logprob(*choice.node), choice.score * 20);
    EXPECT_LE(*search.logprob(*choice.node), choice.score * 20 + 20);
    EXPECT_TRUE(*search.is_leaf(*choice.node));
  }
  EXPECT_EQ(distinct.size(), 8U);
  EXPECT_EQ(search.decode_steps(), 19);
  const SearchTree tree = search.snapshot();
  size_t n_tokens = 0;
  size_t n_leaves = 0;
  for (const SearchTree::Node& node : tree.nodes) {
    n_tokens += node.tokens.size();
    n_leaves += node.is_leaf ? 1 : 0;
  }
  EXPECT_EQ(n_leaves, 8U);
  // All but each beam's last token; at most one panel more for each node, and 2 % beside.
  const SearchKv kv = search.kv();
  EXPECT_EQ(kv.tokens, static_cast<int64_t>(n_tokens) - 8);
  EXPECT_EQ(kv.path_tokens, 8 * (200 + 19));
  const double tokens_of_bytes =
      static_cast<double>(kv.bytes_peak / engine->pool().panel_bytes()) * kPanelTokens;
  EXPECT_LE(tokens_of_bytes, 1.02 * static_cast<double>(kv.tokens) +
                                 static_cast<double>(tree.nodes.size() * kPanelTokens));
}

TEST(Beams, GroupsDiffer) {
  const auto engine = open();
  BeamParams params;
  params.width = 4;
  params.groups = 4;
  params.max_tokens = 5;
  const auto firsts = [&](float diversity) {
    params.diversity = diversity;
    Search search = open_search(*engine, tokens_from(1, 20));
    std::set<TokenId> tokens;
    const auto found = *beam_search(search, params, true);
    for (const SearchChoice& choice : found) tokens.insert(choice.tokens[0]);
    return tokens.size();
  };
  EXPECT_EQ(firsts(0), 1U);
  EXPECT_EQ(firsts(100), 4U);
}

Extension sampled(int max_tokens, uint64_t seed = 3) {
  Extension extension;
  extension.max_tokens = max_tokens;
  extension.sampler.temperature = 1;
  extension.sampler.seed = seed;
  return extension;
}

TEST(BestOf, AreTheAnswersOfARequestForAsMany) {
  const auto engine = open();
  Request request = greedy(tokens_from(1, 20), 15);
  request.sampler.temperature = 1;
  request.sampler.seed = 3;
  request.ignore_eos = false;
  request.n = 6;
  const Reply reply = *engine->generate(request);
  Search search = open_search(*engine, request.prompt);
  const auto found = *best_of(search, 6, sampled(15));
  ASSERT_EQ(found.size(), reply.samples.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].tokens, reply.samples[i].tokens);
    EXPECT_EQ(found[i].text, reply.samples[i].text);
    EXPECT_DOUBLE_EQ(found[i].score, reply.samples[i].mean_logprob);
  }
}

TEST(BestOf, VotesCountAnswers) {
  const auto choice = [](const char* text, double score) {
    SearchChoice one;
    one.text = text;
    one.score = score;
    return one;
  };
  const auto voted = by_votes(
      {choice("7", -0.1), choice("it is 8", -0.2), choice("6", -0.3), choice("5 + 3 = 8", -0.4)});
  ASSERT_EQ(voted.size(), 4U);
  EXPECT_EQ(voted[0].text, "it is 8");
  EXPECT_EQ(voted[0].score, 0.5);
  EXPECT_EQ(voted[1].text, "7");
  EXPECT_EQ(voted[1].score, 0.25);
  EXPECT_EQ(voted[3].text, "5 + 3 = 8");
}

TreeOfThoughts thoughts() {
  TreeOfThoughts policy;
  policy.branches = 4;
  policy.breadth = 2;
  policy.depth = 3;
  policy.thought = sampled(4);
  policy.thought.ignore_eos = true;
  return policy;
}

TEST(Thoughts, KeepWhatScoresBest) {
  const auto engine = open();
  Search search = open_search(*engine, tokens_from(1, 20));
  // What a score sees, level by level.
  std::vector<std::vector<std::pair<double, Tokens>>> seen;
  const Scorer score = [&](Search& of, std::span<const SearchNode> nodes) -> Result<void> {
    auto& level = seen.emplace_back();
    for (const SearchNode node : nodes) {
      const Tokens path = *of.path(node);
      double sum = 0;
      for (const TokenId token : path) sum += token % 50;
      level.emplace_back(sum, path);
      BANYAN_TRY(of.set_score(node, sum));
    }
    return {};
  };
  const auto found = *tree_of_thoughts(search, thoughts(), score);
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[0].size(), 4U);
  EXPECT_EQ(seen[1].size(), 8U);
  ASSERT_EQ(found.size(), 2U);
  for (auto& level : seen) std::ranges::sort(level, std::ranges::greater());
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(found[i].tokens.size(), 12U);
    EXPECT_EQ(found[i].score, seen[2][i].first);
  }
  // What goes on comes from the two best of the level before.
  for (size_t level = 1; level < 3; ++level) {
    for (const auto& [sum, path] : seen[level]) {
      const Tokens before(path.begin(), path.end() - 4);
      EXPECT_TRUE(before == seen[level - 1][0].second || before == seen[level - 1][1].second);
    }
  }
}

TEST(Thoughts, AreScoredByAQuestionWhoseAnswerIsKnown) {
  const auto engine = open();
  const Tokens prompt = tokens_from(1, 20);
  Search search = open_search(*engine, prompt);
  const Tokens question = {100, 101};
  const Tokens answer = {50, 51};
  const auto found = *tree_of_thoughts(search, thoughts(), score_by_question(question, answer));
  for (const SearchChoice& choice : found) {
    Tokens text = prompt;
    for (const Tokens& part : {choice.tokens, question}) {
      text.insert(text.end(), part.begin(), part.end());
    }
    double want = logprobs_behind(*engine, text)[answer[0]];
    text.push_back(answer[0]);
    want += logprobs_behind(*engine, text)[answer[1]];
    EXPECT_NEAR(choice.score, want, 1e-5);
  }
  // Nothing is left of the questions.
  for (const SearchTree::Node& node : search.snapshot().nodes) {
    EXPECT_EQ(std::ranges::search(node.tokens, question).size(), 0U);
  }
  EXPECT_LE(search.snapshot().nodes.size(), 1U + 2U * 3U);
}

TEST(MonteCarlo, LooksMostWhereItWasGood) {
  const auto engine = open();
  Search search = open_search(*engine, tokens_from(1, 20));
  MonteCarlo policy;
  policy.iterations = 12;
  policy.branches = 2;
  policy.depth = 3;
  policy.thought = sampled(3);
  policy.rollout = sampled(5, 4);
  int n_scored = 0;
  const auto reward = [&](const std::string& text) {
    ++n_scored;
    return text.find('e') == std::string::npos ? 0.0 : 1.0;
  };
  const auto found = *monte_carlo(search, policy, score_by_text(reward));
  ASSERT_FALSE(found.empty());
  EXPECT_TRUE(std::ranges::is_sorted(found, std::ranges::greater(), &SearchChoice::score));
  EXPECT_GE(n_scored, 12);
  for (const SearchChoice& choice : found) {
    EXPECT_EQ(choice.score, choice.text.find('e') == std::string::npos ? 0.0 : 1.0);
  }
  // The root's mean is that of all that was played.
  double sum = 0;
  for (const SearchChoice& choice : found) sum += choice.score;
  if (static_cast<int>(found.size()) == n_scored) {
    EXPECT_DOUBLE_EQ(search.snapshot().nodes[0].score, sum / n_scored);
  }
}

TEST(Policies, ThatThrowLeaveTheSearchAndOthersAsTheyShouldBe) {
  const Tokens prompt = tokens_from(1, 20);
  const Reply alone = *open()->generate(greedy(prompt, 12));
  const auto engine = open();
  {
    Search other = open_search(*engine, prompt);
    Search search = open_search(*engine, prompt);
    int n = 0;
    const Scorer score = score_by_text([&](const std::string&) -> double {
      if (++n == 7) throw std::runtime_error("no score today");
      return n;
    });
    EXPECT_THROW(static_cast<void>(tree_of_thoughts(search, thoughts(), score)),
                 std::runtime_error);
    EXPECT_FALSE(search.has_work());
    engine->tree().check_integrity();
    // It goes on, and so do the others.
    EXPECT_TRUE(tree_of_thoughts(search, thoughts(), score_by_likelihood()).has_value());
    EXPECT_TRUE(beam_search(other, {}, true).has_value());
    EXPECT_EQ(engine->generate(greedy(prompt, 12))->tokens, alone.tokens);
  }
  EXPECT_EQ(engine->tree().available_panels(), engine->pool().capacity());
  engine->tree().check_integrity();
}

TEST(Policies, RefuseWhatCannotBe) {
  const auto engine = open();
  Search search = open_search(*engine, tokens_from(1, 20));
  const auto message = [](const auto& result) {
    EXPECT_FALSE(result.has_value());
    return result ? std::string() : result.error().message;
  };
  BeamParams beams;
  beams.width = 0;
  EXPECT_NE(message(beam_search(search, beams, false)).find("--beams"), std::string::npos);
  EXPECT_NE(message(best_of(search, 0, sampled(3))).find("expected 1"), std::string::npos);
  EXPECT_NE(message(best_of(search, 2, {})).find("max_tokens"), std::string::npos);
  TreeOfThoughts policy = thoughts();
  policy.depth = 0;
  EXPECT_NE(message(tree_of_thoughts(search, policy, score_by_likelihood())).find("depth"),
            std::string::npos);
  MonteCarlo monte;
  monte.thought = monte.rollout = sampled(3);
  monte.exploration = -1;
  EXPECT_NE(message(monte_carlo(search, monte, score_by_likelihood())).find("exploration"),
            std::string::npos);
  EXPECT_EQ(search.snapshot().nodes.size(), 1U);
}

TEST(Drawing, ShowsTheTreeAndEscapesItsTexts) {
  const auto engine = open();
  const Tokenizer& tokenizer = engine->tokenizer();
  SearchTree tree;
  const auto text = [&](const std::string& of) { return *tokenizer.encode(of, Special::kPlain); };
  tree.nodes.push_back({{0, 1}, -1, text(std::string(200, 'a') + "<end>"), 0, false});
  tree.nodes.push_back({{1, 1}, 0, text("one"), -1.25, false});
  tree.nodes.push_back({{2, 1}, 1, text("&two\n"), -2.5, true});  // one with its parent
  tree.nodes.push_back({{3, 1}, 0, text("<b>\x01"), -0.5, true});
  const std::string drawing = draw_text(tree, tokenizer);
  EXPECT_NE(drawing.find("<end>\n├─ -2.50 "), std::string::npos) << drawing;
  EXPECT_NE(drawing.find("&two\\n\n└─ -0.50 "), std::string::npos) << drawing;
  EXPECT_EQ(std::ranges::count(drawing, '\n'), 3);
  EXPECT_LT(drawing.size(), 250U);
  const std::string svg = draw_svg(tree, tokenizer);
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("&lt;b&gt;"), std::string::npos);
  EXPECT_NE(svg.find("&amp;two"), std::string::npos);
  EXPECT_EQ(svg.find("<b>"), std::string::npos);
  EXPECT_EQ(svg.find('\x01'), std::string::npos);
}

}  // namespace
}  // namespace banyan
