// SPDX-License-Identifier: Apache-2.0
#include "engine/search_drawing.h"

#include <algorithm>

#include <fmt/format.h>

#include "text/utf8.h"

namespace banyan {
namespace {

constexpr size_t kMostCharacters = 48;

struct Drawn {
  int32_t parent = -1;
  std::vector<TokenId> tokens;
  std::string label;
  double score = 0;
  bool is_leaf = true;
  std::vector<int32_t> children;
};

// One line of well-formed text: line ends as \n, other control characters, which a terminal might
// obey, and what XML does not know as spaces.
std::string one_line(std::string_view text) {
  const std::string valid = make_valid_utf8(text);
  std::string line;
  for (std::string_view rest = valid; !rest.empty();) {
    const std::string_view character = rest.substr(0, first_utf8_unit(rest).length);
    rest.remove_prefix(character.size());
    const auto byte = static_cast<unsigned char>(character[0]);
    const bool is_c1 = byte == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
    const bool is_control =
        byte < 0x20 || byte == 0x7f || is_c1 || character == "\uFFFE" || character == "\uFFFF";
    line += character == "\n" ? "\\n" : is_control ? " " : character;
  }
  return line;
}

// At most kMostCharacters of a text, from its beginning or its end.
std::string shortened(const std::string& text, bool keeps_end) {
  std::vector<size_t> begins;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) begins.push_back(i);
  }
  if (begins.size() <= kMostCharacters) return text;
  return keeps_end ? "…" + text.substr(begins[begins.size() - kMostCharacters])
                   : text.substr(0, begins[kMostCharacters]) + "…";
}

// The tree with each chain of single branches as one node; parents first.
std::vector<Drawn> drawn(const SearchTree& tree, const Tokenizer& tokenizer) {
  std::vector<int> n_children(tree.nodes.size());
  for (const SearchTree::Node& node : tree.nodes) {
    if (node.parent >= 0) ++n_children[node.parent];
  }
  std::vector<Drawn> nodes;
  std::vector<int32_t> place(tree.nodes.size());
  for (size_t i = 0; i < tree.nodes.size(); ++i) {
    const SearchTree::Node& node = tree.nodes[i];
    // The prompt stands for itself.
    const bool continues = node.parent > 0 && n_children[node.parent] == 1;
    place[i] = continues ? place[node.parent] : static_cast<int32_t>(nodes.size());
    if (!continues) {
      nodes.emplace_back().parent = node.parent < 0 ? -1 : place[node.parent];
      if (node.parent >= 0) nodes[nodes.back().parent].children.push_back(place[i]);
    }
    Drawn& one = nodes[place[i]];
    one.tokens.insert(one.tokens.end(), node.tokens.begin(), node.tokens.end());
    one.score = node.score;
    one.is_leaf = node.is_leaf;
  }
  for (Drawn& one : nodes) {
    const std::span<const TokenId> tokens(one.tokens);
    // No more of a long prompt than is shown.
    const size_t n = std::min(tokens.size(), 2 * kMostCharacters);
    const bool is_root = one.parent < 0;
    const std::string text =
        tokenizer.decode(is_root ? tokens.last(n) : tokens.first(n), Special::kParse);
    one.label = shortened(one_line(text), is_root);
  }
  return nodes;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace

std::string draw_text(const SearchTree& tree, const Tokenizer& tokenizer) {
  const std::vector<Drawn> nodes = drawn(tree, tokenizer);
  std::vector<std::string> indents(nodes.size());  // of the lines below each
  std::string text = nodes[0].label + '\n';
  for (size_t i = 1; i < nodes.size(); ++i) {
    const Drawn& node = nodes[i];
    const std::string& indent = indents[node.parent];
    const bool is_last = nodes[node.parent].children.back() == static_cast<int32_t>(i);
    text += fmt::format("{}{} {:.2f} {}\n", indent, is_last ? "└─" : "├─", node.score, node.label);
    indents[i] = indent + (is_last ? "   " : "│  ");
  }
  return text;
}

std::string draw_svg(const SearchTree& tree, const Tokenizer& tokenizer) {
  constexpr int kColumn = 340;
  constexpr int kRow = 26;
  constexpr int kMargin = 16;
  const std::vector<Drawn> nodes = drawn(tree, tokenizer);
  std::vector<int> depth(nodes.size());
  std::vector<double> row(nodes.size());
  std::vector<bool> is_best(nodes.size());
  int n_rows = 0;
  int most_depth = 0;
  int32_t best = -1;
  for (size_t i = 0; i < nodes.size(); ++i) {
    depth[i] = nodes[i].parent < 0 ? 0 : depth[nodes[i].parent] + 1;
    most_depth = std::max(most_depth, depth[i]);
    if (!nodes[i].children.empty()) continue;
    row[i] = n_rows++;
    if (best < 0 || nodes[i].score > nodes[best].score) best = static_cast<int32_t>(i);
  }
  for (size_t i = nodes.size(); i-- > 0;) {
    const std::vector<int32_t>& children = nodes[i].children;
    if (!children.empty()) row[i] = (row[children.front()] + row[children.back()]) / 2;
  }
  for (int32_t i = best; i >= 0; i = nodes[i].parent) is_best[i] = true;

  const auto x = [&](size_t i) { return kMargin + depth[i] * kColumn; };
  const auto y = [&](size_t i) { return kMargin + (row[i] + 0.5) * kRow; };
  const int width = 2 * kMargin + (most_depth + 1) * kColumn;
  const int height = 2 * kMargin + n_rows * kRow;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"monospace\" font-size=\"11\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  for (size_t i = 1; i < nodes.size(); ++i) {
    const size_t parent = nodes[i].parent;
    const int from = x(parent) + kColumn - 30;
    svg += fmt::format(
        "<path d=\"M{} {:.1f}C{} {:.1f} {} {:.1f} {} {:.1f}\" fill=\"none\" stroke=\"{}\"/>\n",
        from, y(parent), from + 15, y(parent), x(i) - 15, y(i), x(i), y(i),
        is_best[i] ? "#1a7f37" : "#999");
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    svg += fmt::format(
        "<g><title>{:.4f} {}</title><rect x=\"{}\" y=\"{:.1f}\" width=\"{}\" height=\"20\" "
        "rx=\"4\" "
        "fill=\"{}\" stroke=\"{}\"/>",
        nodes[i].score, escaped(nodes[i].label), x(i), y(i) - 10, kColumn - 30,
        is_best[i] ? "#dafbe1" : "#f6f8fa", is_best[i] ? "#1a7f37" : "#999");
    // Cut to the box, whatever font there is.
    svg += fmt::format(
        "<svg x=\"{}\" y=\"{:.1f}\" width=\"{}\" height=\"20\"><text x=\"6\" y=\"14\" "
        "xml:space=\"preserve\">{}{}</text></svg></g>\n",
        x(i), y(i) - 10, kColumn - 34,
        nodes[i].parent < 0 ? "" : fmt::format("{:.2f} ", nodes[i].score), escaped(nodes[i].label));
  }
  return svg + "</svg>\n";
}

}  // namespace banyan
