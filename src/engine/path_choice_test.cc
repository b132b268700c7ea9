// SPDX-License-Identifier: Apache-2.0
#include "engine/path_choice.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>
#include <vector>

#include "base/testing_temp_folder.h"
#include "tensor/cpu/cpu_ops.h"

namespace banyan {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

size_t files_in(const std::filesystem::path& folder) {
  return std::distance(std::filesystem::directory_iterator(folder), {});
}

class PathChoiceTest : public ::testing::Test {
 protected:
  PathChoice choose(bool measure_again = false) {
    return choose_paths(pool_, detect_isa(), cache(), measure_again);
  }
  std::string cache() const { return (folder_.path() / "cache/banyan").string(); }

  TempFolder folder_;
  ThreadPool pool_{1, init_worker_thread};
};

TEST_F(PathChoiceTest, IsMeasuredOnceAndThenRead) {
  const PathChoice first = choose();
  ASSERT_TRUE(first.measured);
  EXPECT_FALSE(first.was_kept);
  EXPECT_EQ(first.note, "");
  const std::string text = read_file(first.file);
  EXPECT_EQ(text, write_product_paths(*first.measured, paths_key(pool_, detect_isa())));
  const PathChoice second = choose();
  EXPECT_TRUE(second.was_kept);
  EXPECT_EQ(second.note, "");
  EXPECT_EQ(second.paths(), first.paths());
  EXPECT_EQ(read_file(first.file), text);
  EXPECT_EQ(files_in(cache()), 1U) << "nothing temporary stays";
}

TEST_F(PathChoiceTest, OfAnotherMachineDamagedOrForbiddenIsReplaced) {
  const PathsKey key = paths_key(pool_, detect_isa());
  const std::string file = choose().file;
  PathsKey other = key;
  other.cpu = "another";
  MeasuredPaths forbidden;
  forbidden.paths.at(WeightClass::kNibbles, 0) = ProductPath::kInt8;
  const std::string whole = read_file(file);
  for (const std::string& text :
       {write_product_paths({}, other), whole.substr(0, whole.size() / 2), std::string(),
        std::string("no JSON"), write_product_paths(forbidden, key)}) {
    std::ofstream(file, std::ios::binary) << text;
    const PathChoice again = choose();
    EXPECT_FALSE(again.was_kept);
    EXPECT_NE(again.note.find(file), std::string::npos) << again.note;
    ASSERT_TRUE(again.measured);
    const PathChoice after = choose();
    EXPECT_TRUE(after.was_kept);
    EXPECT_EQ(after.note, "");
    EXPECT_EQ(after.paths(), again.paths());
  }
}

TEST_F(PathChoiceTest, AsksForAFolderThatCanBeWrittenAndGoesOn) {
  folder_.write("cache", "a file where the folder should be");
  const PathChoice choice = choose();
  EXPECT_FALSE(choice.measured);
  EXPECT_NE(choice.note.find(cache()), std::string::npos) << choice.note;
  EXPECT_NE(choice.note.find("XDG_CACHE_HOME"), std::string::npos) << choice.note;
}

TEST_F(PathChoiceTest, NoFolderIsNoQuestion) {
  const PathChoice choice = choose_paths(pool_, detect_isa(), "");
  EXPECT_FALSE(choice.measured);
  EXPECT_EQ(choice.note, "");
}

TEST_F(PathChoiceTest, CanBeMeasuredAgain) {
  const PathsKey key = paths_key(pool_, detect_isa());
  const std::string file = choose().file;
  std::ofstream(file, std::ios::binary) << write_product_paths({}, key) << " ";
  const PathChoice again = choose(/*measure_again=*/true);
  ASSERT_TRUE(again.measured);
  EXPECT_FALSE(again.was_kept);
  EXPECT_EQ(read_file(file), write_product_paths(*again.measured, key));
}

// Two processes see the same file and no lock; threads stand for them.
TEST_F(PathChoiceTest, OneOfManyFirstStartsDecidesForAll) {
  std::vector<PathChoice> choices(4);
  std::vector<std::thread> starts;
  for (size_t i = 0; i < choices.size(); ++i) {
    starts.emplace_back([&, i] {
      ThreadPool pool(1, init_worker_thread);
      choices[i] = choose_paths(pool, detect_isa(), cache());
    });
  }
  for (std::thread& start : starts) start.join();
  const PathChoice kept = choose();
  EXPECT_TRUE(kept.was_kept);
  for (const PathChoice& choice : choices) EXPECT_EQ(choice.paths(), kept.paths()) << choice.note;
}

}  // namespace
}  // namespace banyan
