// SPDX-License-Identifier: Apache-2.0
// Sorts digits with a model that is too small to: a tree of thoughts. A thought is a next digit;
// behind each text that is kept stand the likeliest few, all go through the model in one pass, and
// the texts with the fewest visible mistakes stay. Draws the tree: sort_digits MODEL DIGITS
#include <algorithm>
#include <banyan/banyan.hpp>
#include <cstdlib>
#include <iostream>

namespace {

using banyan::Node;

constexpr std::size_t kBranches = 6;  // thoughts behind each text
constexpr std::size_t kBreadth = 5;   // texts that are kept

struct Thought {
  Node node = 0;
  int parent = -1;  // index of a thought
  std::string digits;
  double score = 0;
};

template <class T>
T value_of(banyan::Result<T> result) {
  if (result) return *std::move(result);
  std::cerr << result.error().message << '\n';
  std::exit(1);
}

// What can be seen of a sorted text that has only begun: steps down, digits that come too often,
// and those that were passed over.
int mistakes(const std::string& given, const std::string& sorted) {
  int n = 0;
  for (std::size_t i = 1; i < sorted.size(); ++i) n += sorted[i] < sorted[i - 1] ? 1 : 0;
  for (char digit = '0'; digit <= '9'; ++digit) {
    const auto had = std::count(given.begin(), given.end(), digit);
    const auto has = std::count(sorted.begin(), sorted.end(), digit);
    const bool is_passed = !sorted.empty() && digit < sorted.back();
    n += static_cast<int>(is_passed ? std::abs(has - had) : std::max<std::ptrdiff_t>(0, has - had));
  }
  return n;
}

bool is_digit(const std::string& text) {
  return text.size() == 1 && text[0] >= '0' && text[0] <= '9';
}

// A line for each thought that others stand behind, with those that were given up.
void draw(const std::vector<Thought>& thoughts, int of, const std::string& indent) {
  std::string dropped;
  for (std::size_t i = 0; i < thoughts.size(); ++i) {
    const bool leads_on = std::any_of(thoughts.begin(), thoughts.end(), [&](const Thought& t) {
      return t.parent == static_cast<int>(i);
    });
    if (thoughts[i].parent != of || leads_on) continue;
    dropped += std::string(" ") + thoughts[i].digits.back();
  }
  std::cout << (dropped.empty() ? "" : "   (" + dropped + " )") << '\n';
  for (std::size_t i = 0; i < thoughts.size(); ++i) {
    const bool leads_on = std::any_of(thoughts.begin(), thoughts.end(), [&](const Thought& t) {
      return t.parent == static_cast<int>(i);
    });
    if (thoughts[i].parent != of || !leads_on) continue;
    std::cout << indent << thoughts[i].digits.back();
    draw(thoughts, static_cast<int>(i), indent + "  ");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string given = argc == 3 ? argv[2] : "";
  if (given.empty() || given.find_first_not_of("0123456789") != std::string::npos) {
    return std::cerr << "usage: sort_digits MODEL DIGITS, for example 7302519486\n", 2;
  }
  banyan::Model model = value_of(banyan::Model::load(argv[1]));
  std::string prompt = "Digits, and the same digits from the smallest to the largest:\n";
  for (const std::string example : {"31420", "9970541", "6284173350", "85113097422658"}) {
    std::string sorted = example;
    std::sort(sorted.begin(), sorted.end());
    prompt += example + " -> " + sorted + "\n";
  }
  prompt += given + " -> ";
  const auto tokens = value_of(model.tokenize(prompt, BANYAN_ADD_BOS));

  banyan::GenerateOptions greedy;
  greedy.temperature = 0;
  greedy.max_tokens = static_cast<int32_t>(given.size());
  std::cout << "the model alone: " << value_of(model.generate(tokens, greedy))->text << '\n';

  banyan::Search search = value_of(model.search(tokens));
  value_of(search.extend(search.root(), {}));
  value_of(search.run());
  std::vector<Thought> thoughts(1);
  thoughts[0].node = search.root();
  std::vector<int> kept = {0};
  for (std::size_t length = 1; length <= given.size(); ++length) {
    std::vector<int> next;
    for (const int of : kept) {
      std::vector<banyan::TokenLogprob> digits;
      for (const auto& likely : value_of(search.next_tokens(thoughts[of].node, 3 * kBranches))) {
        const bool fits = digits.size() < kBranches && is_digit(*model.detokenize({likely.token}));
        if (fits) digits.push_back(likely);
      }
      if (digits.empty()) continue;
      const auto nodes = value_of(search.fork(thoughts[of].node, digits.size()));
      for (std::size_t i = 0; i < digits.size(); ++i) {
        value_of(search.extend(nodes[i], {digits[i].token}));
        next.push_back(static_cast<int>(thoughts.size()));
        thoughts.push_back(
            {nodes[i], of, thoughts[of].digits + *model.detokenize({digits[i].token})});
      }
    }
    value_of(search.run());
    for (const int i : next) {
      const double likelihood = value_of(search.score(thoughts[i].node));
      thoughts[i].score = likelihood - 1000 * mistakes(given, thoughts[i].digits);
      value_of(search.set_score(thoughts[i].node, thoughts[i].score));
    }
    std::stable_sort(next.begin(), next.end(),
                     [&](int a, int b) { return thoughts[a].score > thoughts[b].score; });
    for (std::size_t i = kBreadth; i < next.size(); ++i) {
      value_of(search.prune(thoughts[next[i]].node));
    }
    next.resize(std::min(next.size(), kBreadth));
    kept = next;
  }
  draw(thoughts, 0, "");
  const auto kv = value_of(search.kv());
  std::cout << "sorted: " << thoughts[kept.front()].digits << '\n'
            << thoughts.size() - 1 << " thoughts; " << kv.tokens
            << " tokens held where the paths of "
            << "the " << kept.size() << " texts kept have " << kv.path_tokens << '\n';
}
