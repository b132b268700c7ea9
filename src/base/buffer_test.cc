// SPDX-License-Identifier: Apache-2.0
#include "base/buffer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "base/testing_temp_folder.h"

namespace banyan {
namespace {

uint64_t resident_bytes() {
  uint64_t total = 0;
  uint64_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST(AlignedArray, IsAlignedAndMovesWithItsContents) {
  AlignedArray<float> a(100);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 64, 0u);
  std::fill(a.span().begin(), a.span().end(), 2.5f);
  const float* data = a.data();
  AlignedArray<float> b(std::move(a));
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(b[99], 2.5f);
  AlignedArray<float> c;
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.size(), 100u);
}

TEST(AlignedArray, KeepsItsContentsUnlessItMustGrow) {
  AlignedArray<int> a(10);
  a[3] = 7;
  a.reserve_discarding(5);
  EXPECT_EQ(a.size(), 10u);
  EXPECT_EQ(a[3], 7);
  a.reserve_discarding(11);
  EXPECT_EQ(a.size(), 11u);
}

TEST(AlignedArrayDeathTest, ByteCountPastSizeTIsABrokenInvariant) {
  EXPECT_DEATH(AlignedArray<double>(SIZE_MAX / 4), "do not fit");
}

TEST(PageReservation, TakesMemoryOnlyForTouchedPages) {
  const uint64_t before = resident_bytes();
  auto reservation = PageReservation::reserve(8ull << 30);
  ASSERT_TRUE(reservation) << reservation.error().message;
  EXPECT_EQ(reservation->size(), 8ull << 30);
  // One byte in every 4 MiB: with 2 MiB pages this would take half of it all.
  for (uint64_t i = 0; i < 64; ++i) {
    std::byte& b = reservation->data()[i << 22];
    EXPECT_EQ(b, std::byte{0});
    b = std::byte{1};
  }
  EXPECT_LT(resident_bytes() - before, 8u << 20);
}

TEST(PageReservation, LastByteCanBeWritten) {
  auto reservation = PageReservation::reserve(4097);
  ASSERT_TRUE(reservation);
  reservation->data()[4096] = std::byte{1};
  PageReservation moved(std::move(*reservation));
  EXPECT_EQ(moved.data()[4096], std::byte{1});
  EXPECT_EQ(reservation->data(), nullptr);
}

TEST(PageReservation, NoBytesAreNothing) {
  const auto reservation = PageReservation::reserve(0);
  ASSERT_TRUE(reservation);
  EXPECT_EQ(reservation->size(), 0u);
}

TEST(PageReservation, MoreThanTheAddressSpaceIsAnError) {
  for (const uint64_t bytes : {uint64_t{1} << 62, UINT64_MAX}) {
    const auto reservation = PageReservation::reserve(bytes);
    ASSERT_FALSE(reservation);
    EXPECT_EQ(reservation.error().code, ErrorCode::kFailed);
    EXPECT_NE(reservation.error().message.find("EiB"), std::string::npos);
  }
}

TEST(MappedFile, HoldsTheBytesOfTheFile) {
  const TempFolder folder;
  std::string content(10'001, 'x');
  content[10'000] = 'y';
  auto file = MappedFile::open(folder.write("data", content));
  ASSERT_TRUE(file) << file.error().message;
  MappedFile moved;
  moved = std::move(*file);
  ASSERT_EQ(moved.bytes().size(), content.size());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(moved.bytes().data()), content.size()),
            content);
}

void expect_bad_path(const std::string& path, const std::string& why) {
  const auto file = MappedFile::open(path);
  ASSERT_FALSE(file) << path;
  EXPECT_EQ(file.error().code, ErrorCode::kBadInput);
  EXPECT_NE(file.error().message.find("'" + path + "'"), std::string::npos) << file.error().message;
  EXPECT_NE(file.error().message.find(why), std::string::npos) << file.error().message;
}

TEST(MappedFile, SaysWhatIsWrongWithAPath) {
  const TempFolder folder;
  const std::string pipe = (folder.path() / "pipe").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_bad_path((folder.path() / "absent").string(), "No such file");
  expect_bad_path(folder.path().string(), "is a directory");
  expect_bad_path(folder.write("empty", ""), "is empty");
  expect_bad_path(pipe, "pipe");
  expect_bad_path("/dev/null", "device");
  expect_bad_path("", "No such file");
}

TEST(MappedFile, UnreadableFileIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read every file";
  const TempFolder folder;
  const std::string path = folder.write("secret", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  expect_bad_path(path, "denied");
}

}  // namespace
}  // namespace banyan
