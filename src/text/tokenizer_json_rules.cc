// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer_json_rules.h"

#include <utility>

#include "base/printable.h"
#include "text/base64.h"
#include "text/pre_tokenizer_rules.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr size_t kMaxParts = 64;

Error wrong_type(std::string_view key, std::string_view wanted) {
  return bad_input("its \"" + std::string(key) + "\" is not " + std::string(wanted));
}

// Reads into `out` or returns the error.
template <class T>
Result<void> read(Result<T> from, T& out) {
  if (!from) return from.error();
  out = *std::move(from);
  return {};
}

// The part of that name, nullptr where there is none.
Result<const json*> part(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return static_cast<const json*>(nullptr);
  if (!found->is_object()) return wrong_type(key, "an object");
  return &*found;
}

// The parts of a normalizer, pre-tokenizer or decoder one after another, those of sequences in
// their place.
Result<void> flatten(const json& part, const char* list, std::vector<const json*>& out) {
  if (!part.is_object()) return wrong_type(list, "a list of objects");
  auto type = text_member(part, "type", "");
  if (!type) return type.error();
  if (*type != "Sequence") {
    if (out.size() == kMaxParts) return bad_input("it has more than 64 parts in a sequence");
    out.push_back(&part);
    return {};
  }
  const auto found = part.find(list);
  if (found == part.end() || !found->is_array()) return wrong_type(list, "a list of objects");
  for (const json& inner : *found) BANYAN_TRY(flatten(inner, list, out));
  return {};
}

Result<std::vector<const json*>> parts_of(const json& tokenizer, const char* key,
                                          const char* list) {
  std::vector<const json*> parts;
  auto found = part(tokenizer, key);
  if (!found) return found.error();
  if (*found != nullptr) BANYAN_TRY(flatten(**found, list, parts));
  return parts;
}

Error not_supported(const char* what, const std::string& type) {
  return bad_input(std::string("its ") + what + " '" + printable(type) + "' is not supported");
}

struct Pattern {
  std::string text;
  bool is_expression = false;
};

// {"String": ".."} or {"Regex": ".."}.
Result<Pattern> read_pattern(const json& owner) {
  const auto found = owner.find("pattern");
  if (found == owner.end() || !found->is_object() || found->size() != 1) {
    return bad_input("it has a \"pattern\" that is neither a String nor a Regex");
  }
  Pattern pattern;
  pattern.is_expression = found->contains("Regex");
  const char* key = pattern.is_expression ? "Regex" : "String";
  BANYAN_TRY(read(text_member(*found, key, ""), pattern.text));
  if (pattern.text.empty()) return bad_input("it has an empty \"pattern\"");
  return pattern;
}

Result<NormalizerStep> read_normalizer(const json& part) {
  std::string type;
  BANYAN_TRY(read(text_member(part, "type", ""), type));
  NormalizerStep step{NormalizerStep::kNfc};
  constexpr std::pair<const char*, NormalizerStep::Kind> kSimple[] = {
      {"NFC", NormalizerStep::kNfc},
      {"NFD", NormalizerStep::kNfd},
      {"NFKC", NormalizerStep::kNfkc},
      {"NFKD", NormalizerStep::kNfkd},
      {"Lowercase", NormalizerStep::kLowercase},
      {"StripAccents", NormalizerStep::kStripAccents},
      {"Nmt", NormalizerStep::kNmt}};
  for (const auto& [name, kind] : kSimple) {
    step.kind = kind;
    if (type == name) return step;
  }
  if (type == "Strip") {
    step.kind = NormalizerStep::kStrip;
    BANYAN_TRY(read(flag_member(part, "strip_left", true), step.left));
    BANYAN_TRY(read(flag_member(part, "strip_right", true), step.right));
  } else if (type == "Prepend") {
    step.kind = NormalizerStep::kPrepend;
    BANYAN_TRY(read(text_member(part, "prepend", ""), step.content));
  } else if (type == "Replace") {
    auto pattern = read_pattern(part);
    if (!pattern) return pattern.error();
    step.kind =
        pattern->is_expression ? NormalizerStep::kReplaceExpression : NormalizerStep::kReplaceText;
    step.pattern = pattern->text;
    BANYAN_TRY(read(text_member(part, "content", ""), step.content));
  } else if (type == "Precompiled") {
    std::string coded;
    BANYAN_TRY(read(text_member(part, "precompiled_charsmap", ""), coded));
    auto bytes = decode_base64(coded);
    if (!bytes) return bad_input("its \"precompiled_charsmap\" is not base64");
    step.kind = NormalizerStep::kCharsmapGraphemes;
    step.content = *std::move(bytes);
  } else {
    return not_supported("normalizer", type);
  }
  return step;
}

Result<SplitStep::Behavior> read_behavior(const json& part, const char* fallback) {
  std::string name;
  BANYAN_TRY(read(text_member(part, "behavior", fallback), name));
  constexpr std::pair<const char*, SplitStep::Behavior> kNames[] = {
      {"Isolated", SplitStep::kIsolated},
      {"Removed", SplitStep::kRemoved},
      {"MergedWithPrevious", SplitStep::kMergedWithPrevious},
      {"MergedWithNext", SplitStep::kMergedWithNext},
      {"Contiguous", SplitStep::kContiguous}};
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return behavior;
  }
  return not_supported("behavior", name);
}

SplitStep expression_step(std::string pattern, SplitStep::Behavior behavior) {
  SplitStep step;
  step.pattern = std::move(pattern);
  step.behavior = behavior;
  return step;
}

Result<SplitStep> read_metaspace(const json& part) {
  SplitStep step;
  step.kind = SplitStep::kMetaspace;
  BANYAN_TRY(read(text_member(part, "replacement", std::string(kSpaceLetter)), step.pattern));
  if (step.pattern != kSpaceLetter) return not_supported("replacement of spaces", step.pattern);
  bool old_style = true;  // what files before 2023 have instead of a scheme
  BANYAN_TRY(read(flag_member(part, "add_prefix_space", true), old_style));
  std::string scheme;
  BANYAN_TRY(read(text_member(part, "prepend_scheme", old_style ? "always" : "never"), scheme));
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return not_supported("prepend_scheme", scheme);
  }
  step.prepend = scheme == "always"  ? SplitStep::kAlways
                 : scheme == "first" ? SplitStep::kFirst
                                     : SplitStep::kNever;
  BANYAN_TRY(read(flag_member(part, "split", true), step.cut));
  return step;
}

// A Split or one of the pre-tokenizers that are splits with a fixed pattern.
Result<SplitStep> read_split(const json& part, const std::string& type) {
  SplitStep step;
  if (type == "Split") {
    auto pattern = read_pattern(part);
    if (!pattern) return pattern.error();
    step.kind = pattern->is_expression ? SplitStep::kExpression : SplitStep::kText;
    step.pattern = pattern->text;
    BANYAN_TRY(read(read_behavior(part, "Isolated"), step.behavior));
    BANYAN_TRY(read(flag_member(part, "invert", false), step.invert));
    return step;
  }
  if (type == "Digits") {
    bool one_by_one = false;
    BANYAN_TRY(read(flag_member(part, "individual_digits", false), one_by_one));
    return expression_step(R"(\p{N})", one_by_one ? SplitStep::kIsolated : SplitStep::kContiguous);
  }
  if (type == "Punctuation") {
    step = expression_step(R"([!-/:-@\[-`{-~\p{P}])", SplitStep::kIsolated);
    BANYAN_TRY(read(read_behavior(part, "Isolated"), step.behavior));
    return step;
  }
  if (type == "Whitespace") {
    // Rust's \w, which takes the two joiners too.
    step =
        expression_step(R"([\w\x{200C}\x{200D}]+|[^\w\s\x{200C}\x{200D}]+)", SplitStep::kRemoved);
    step.invert = true;
    return step;
  }
  if (type == "WhitespaceSplit") return expression_step(R"(\s)", SplitStep::kRemoved);
  if (type == "CharDelimiterSplit") {
    step.kind = SplitStep::kText;
    step.behavior = SplitStep::kRemoved;
    BANYAN_TRY(read(text_member(part, "delimiter", ""), step.pattern));
    return step;
  }
  return not_supported("pre-tokenizer", type);
}

Result<void> read_pre_tokenizers(const json& tokenizer, TextRules& rules, bool& byte_level) {
  auto parts = parts_of(tokenizer, "pre_tokenizer", "pretokenizers");
  if (!parts) return parts.error();
  for (const json* part : *parts) {
    std::string type;
    BANYAN_TRY(read(text_member(*part, "type", ""), type));
    if (byte_level) return bad_input("its pre-tokenizer goes on after ByteLevel");
    if (type == "Metaspace") {
      auto step = read_metaspace(*part);
      if (!step) return step.error();
      if (step->prepend == SplitStep::kAlways) rules.space_prefix = SpacePrefix::kEvery;
      if (step->prepend == SplitStep::kFirst) rules.space_prefix = SpacePrefix::kFirst;
      rules.space_letters = true;
      rules.splits.push_back(*std::move(step));
    } else if (type == "ByteLevel") {
      byte_level = true;
      bool add_space = true;
      bool cut = true;
      BANYAN_TRY(read(flag_member(*part, "add_prefix_space", true), add_space));
      BANYAN_TRY(read(flag_member(*part, "use_regex", true), cut));
      if (add_space) {
        SplitStep step;
        step.kind = SplitStep::kAddSpace;
        rules.splits.push_back(std::move(step));
      }
      if (cut) rules.splits.push_back(expression_step(kGpt2Expression, SplitStep::kIsolated));
    } else {
      auto step = read_split(*part, type);
      if (!step) return step.error();
      rules.splits.push_back(*std::move(step));
    }
  }
  return {};
}

Result<void> read_normalizers(const json& tokenizer, TextRules& rules) {
  auto parts = parts_of(tokenizer, "normalizer", "normalizers");
  if (!parts) return parts.error();
  for (const json* part : *parts) {
    auto step = read_normalizer(*part);
    if (!step) return step.error();
    if (step->kind == NormalizerStep::kPrepend && step->content == kSpaceLetter) {
      rules.space_prefix = SpacePrefix::kEvery;
    }
    if (step->kind == NormalizerStep::kReplaceText && step->pattern == " " &&
        step->content == kSpaceLetter) {
      rules.space_letters = true;
    }
    rules.normalizer.push_back(*std::move(step));
  }
  return {};
}

// Decoding follows from the rules of encoding, so that it undoes them; a decoder only has to be one
// that does so too.
Result<void> check_decoder(const json& tokenizer) {
  auto parts = parts_of(tokenizer, "decoder", "decoders");
  if (!parts) return parts.error();
  for (const json* part : *parts) {
    std::string type;
    BANYAN_TRY(read(text_member(*part, "type", ""), type));
    if (type != "ByteLevel" && type != "Metaspace" && type != "ByteFallback" && type != "Fuse" &&
        type != "Strip" && type != "Replace") {
      return not_supported("decoder", type);
    }
  }
  return {};
}

Result<void> read_model(const json& tokenizer, TextRules& rules, bool byte_level) {
  const json& model = tokenizer.at("model");
  std::string type;
  // Files of before 2021 have no type; those have merges.
  BANYAN_TRY(read(text_member(model, "type", "BPE"), type));
  if (type == "WordPiece" || type == "WordLevel") {
    return bad_input("its tokenizer is " + type + ", that of encoders, which do not generate text");
  }
  BANYAN_TRY(read(flag_member(model, "byte_fallback", false), rules.byte_fallback));
  if (type == "Unigram") {
    if (byte_level) return bad_input("its unigram model is byte-level, which is not supported");
    rules.subwords = Subwords::kUnigram;
    return {};
  }
  if (type != "BPE") return not_supported("model", type);
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    std::string text;
    BANYAN_TRY(read(text_member(model, affix, ""), text));
    if (!text.empty()) return bad_input(std::string("its ") + affix + " is not supported");
  }
  rules.subwords = byte_level ? Subwords::kByteMerges : Subwords::kCharacterMerges;
  rules.closed_merges = true;
  BANYAN_TRY(read(flag_member(model, "ignore_merges", false), rules.whole_words));
  BANYAN_TRY(read(flag_member(model, "fuse_unk", false), rules.fuse_unknown));
  return {};
}

}  // namespace

Result<std::string> text_member(const json& object, const char* key, const std::string& fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  if (!found->is_string()) return wrong_type(key, "a string");
  return found->get_ref<const std::string&>();
}

Result<bool> flag_member(const json& object, const char* key, bool fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  if (!found->is_boolean()) return wrong_type(key, "true or false");
  return found->get<bool>();
}

Result<TextRules> read_text_rules(const json& tokenizer) {
  auto model = part(tokenizer, "model");
  if (!model) return model.error();
  if (*model == nullptr) return bad_input("it has no \"model\"");
  TextRules rules;
  bool byte_level = false;
  BANYAN_TRY(read_normalizers(tokenizer, rules));
  BANYAN_TRY(read_pre_tokenizers(tokenizer, rules, byte_level));
  BANYAN_TRY(check_decoder(tokenizer));
  BANYAN_TRY(read_model(tokenizer, rules, byte_level));
  return rules;
}

}  // namespace banyan
