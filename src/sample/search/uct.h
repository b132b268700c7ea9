// SPDX-License-Identifier: Apache-2.0
#pragma once
// Monte Carlo tree search by upper confidence bounds (UCT; Kocsis & Szepesvari 2006) as a value: it
// knows visits and rewards only, and which node to look at next.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace banyan {

class Uct {
 public:
  struct Node {
    int parent = -1;
    std::vector<int> children;
    int64_t visits = 0;
    double reward = 0;  // summed
    double mean() const { return visits == 0 ? 0 : reward / static_cast<double>(visits); }
  };

  // A root, 0. `exploration` >= 0 weighs what is little known against what was good; sqrt(2) suits
  // rewards in [0, 1].
  explicit Uct(double exploration) : exploration_(exploration), nodes_(1) {}

  // From the root down to a node without children: always to the child with the largest
  //   mean + exploration * sqrt(ln(visits of the parent) / visits),
  // those never visited first, equal ones as they were added.
  int select() const;

  int add_child(int parent);

  // A reward of the node, which counts for all above it too.
  void back_up(int node, double reward);

  // The child with most visits, equal ones as they were added; -1 if there is none.
  int most_visited_child(int node) const;

  const Node& node(int index) const { return nodes_[index]; }
  size_t size() const { return nodes_.size(); }
  int depth(int node) const;

 private:
  double bound(int child) const;

  double exploration_;
  std::vector<Node> nodes_;
};

}  // namespace banyan
