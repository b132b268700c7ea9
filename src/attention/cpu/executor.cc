// SPDX-License-Identifier: Apache-2.0
#include "attention/executor.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "attention/cpu/kernels.h"
#include "attention/cpu/work_item.h"
#include "base/check.h"

namespace banyan {
namespace {

// Multiply-adds (of K and V each) below which the caller is done before the workers are awake:
// some 5 us of one core.
constexpr uint64_t kAloneLimit = 1 << 16;

// For each worker; planners make fewer.
constexpr uint64_t kMostPartsOfARow = 16;

class CpuExecutor final : public AttentionExecutor {
 public:
  CpuExecutor(ThreadPool& pool, Isa isa, const PairKernels* pairs)
      : pool_(pool), kernels_(attention_kernels(isa)), pairs_(pairs), scratch_(pool.size()) {}

  void prepare(const Plan& plan, const KvShape& shape, int n_heads) override;
  void attend(const Plan& plan, const AttendInputs& in, const AttendOutputs& out) override;
  uint64_t workspace_bytes() const override;

 private:
  ThreadPool& pool_;
  const AttentionKernels& kernels_;
  const PairKernels* pairs_;            // null: every product in f32
  std::vector<WorkerScratch> scratch_;  // one for each worker
  AlignedArray<float> partials_;
};

// KV heads of a range of query heads, with `group` of these to each.
struct KvHeads {
  int begin;
  int n;
};
KvHeads kv_heads(HeadRange heads, int group) {
  return {heads.begin / group, (heads.end - 1) / group - heads.begin / group + 1};
}

// Whether the whole plan is not worth a worker's waking.
bool is_small(const Plan& plan, int head_dim, int group) {
  if (plan.items.size() == 1 && kv_heads(plan.heads_of(plan.items[0]), group).n == 1) {
    return true;
  }
  uint64_t products = 0;
  for (const WorkItem& item : plan.items) {
    products += item.cost * head_dim * kv_heads(plan.heads_of(item), group).n;
    if (products > kAloneLimit) return false;
  }
  return true;
}

void CpuExecutor::prepare(const Plan& plan, const KvShape& shape, int n_heads) {
  for (WorkerScratch& scratch : scratch_) scratch.reserve(shape.head_dim, pairs_ != nullptr);
  // Sequences that grow are cut into more and more parts, a few for each worker: room for those of
  // a single one from the beginning, and half as much again as plans with many ask for.
  const uint64_t single = kMostPartsOfARow * pool_.size() * n_heads * (shape.head_dim + 2);
  if (plan.workspace_floats > partials_.size() || partials_.size() == 0) {
    partials_.reserve_discarding(
        std::max(single, plan.workspace_floats + plan.workspace_floats / 2));
  }
}

void CpuExecutor::attend(const Plan& plan, const AttendInputs& in, const AttendOutputs& out) {
  BANYAN_CHECK(partials_.size() >= plan.workspace_floats, "prepare() comes before attend()");
  const auto last = std::ranges::max_element(plan.row_pos);
  const int64_t most_keys = last == plan.row_pos.end() ? 0 : int64_t{*last} + 1;
  const AttendCall call{&kernels_, pairs_, &plan, &in, &out, partials_.data(), most_keys};
  const int group = in.n_heads / in.kv.shape.n_kv_heads;
  const bool alone = pool_.size() == 1 || is_small(plan, in.kv.shape.head_dim, group);
  // Every worker takes the next KV head of the next piece; pieces are listed with the largest
  // first.
  const auto for_each = [&](const auto& pieces, auto heads_of, auto work) {
    std::atomic<size_t> next{0};
    const auto worker = [&](int index) {
      size_t piece = 0;
      size_t first = 0;  // units before those of `piece`
      while (piece < pieces.size()) {
        const size_t unit = next.fetch_add(1, std::memory_order_relaxed);
        KvHeads heads = kv_heads(heads_of(pieces[piece]), group);
        while (unit >= first + heads.n) {
          first += heads.n;
          if (++piece == pieces.size()) return;
          heads = kv_heads(heads_of(pieces[piece]), group);
        }
        const int kv_head = heads.begin + static_cast<int>(unit - first);
        work(call, pieces[piece], kv_head, scratch_[index]);
      }
    };
    if (pieces.empty()) return;
    if (alone) {
      worker(0);
    } else {
      pool_.run(worker);
    }
  };
  for_each(
      plan.items, [&](const WorkItem& item) { return plan.heads_of(item); }, attend_item);
  for_each(
      plan.merges, [](const Merge& merge) { return merge.heads; }, attend_merge);
}

uint64_t CpuExecutor::workspace_bytes() const {
  uint64_t bytes = partials_.size() * sizeof(float);
  for (const WorkerScratch& scratch : scratch_) bytes += scratch.bytes();
  return bytes;
}

}  // namespace

std::unique_ptr<AttentionExecutor> make_cpu_executor(ThreadPool& pool, Isa isa,
                                                     const PairKernels* pairs) {
  return std::make_unique<CpuExecutor>(pool, isa, pairs);
}

std::unique_ptr<AttentionExecutor> make_cpu_executor(ThreadPool& pool,
                                                     const CpuAttentionOptions& options) {
  return make_cpu_executor(pool, options.isa,
                           options.pair_products
                               ? pair_kernels_for(options.isa, has_avx512_vnni(), has_avx512_bf16())
                               : nullptr);
}

}  // namespace banyan
