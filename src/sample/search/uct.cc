// SPDX-License-Identifier: Apache-2.0
#include "sample/search/uct.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace banyan {

double Uct::bound(int child) const {
  const Node& node = nodes_[child];
  if (node.visits == 0) return std::numeric_limits<double>::infinity();
  const double parent_visits = std::max<double>(1, nodes_[node.parent].visits);
  return node.mean() +
         exploration_ * std::sqrt(std::log(parent_visits) / static_cast<double>(node.visits));
}

int Uct::select() const {
  int node = 0;
  while (!nodes_[node].children.empty()) {
    node = *std::ranges::max_element(nodes_[node].children, {}, [this](int c) { return bound(c); });
  }
  return node;
}

int Uct::add_child(int parent) {
  const int index = static_cast<int>(nodes_.size());
  nodes_.emplace_back().parent = parent;
  nodes_[parent].children.push_back(index);
  return index;
}

void Uct::back_up(int node, double reward) {
  for (; node >= 0; node = nodes_[node].parent) {
    ++nodes_[node].visits;
    nodes_[node].reward += reward;
  }
}

int Uct::most_visited_child(int node) const {
  const std::vector<int>& children = nodes_[node].children;
  if (children.empty()) return -1;
  return *std::ranges::max_element(children, {}, [this](int c) { return nodes_[c].visits; });
}

int Uct::depth(int node) const {
  int depth = 0;
  for (; nodes_[node].parent >= 0; node = nodes_[node].parent) ++depth;
  return depth;
}

}  // namespace banyan
