// SPDX-License-Identifier: Apache-2.0
// Asks a model a question, prints the answer as it comes, and says how much its text is like the
// question's: example MODEL QUESTION
#include <banyan/banyan.hpp>
#include <iostream>
#include <numeric>

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: example MODEL QUESTION\n", 2;
  auto model = banyan::Model::load(argv[1]);
  if (!model) return std::cerr << model.error().message << '\n', 1;

  const auto prompt = model->apply_chat_template({{"user", argv[2]}});
  if (!prompt) return std::cerr << prompt.error().message << '\n', 1;
  banyan::GenerateOptions options;
  options.temperature = 0;
  const auto reply = model->generate(*prompt, options, [](banyan::Token, std::string_view text) {
    return static_cast<bool>(std::cout << text << std::flush);  // false would end the answer
  });
  if (!reply) return std::cerr << reply.error().message << '\n', 1;
  std::cout << '\n' << (*reply)->n_tokens << " tokens in " << (*reply)->predicted_ms << " ms\n";

  const auto embedding = [&](const char* text) {
    return *model->embed(*model->tokenize(text, BANYAN_ADD_BOS | BANYAN_ADD_EOS));
  };
  const std::vector<float> a = embedding(argv[2]);
  const std::vector<float> b = embedding((*reply)->text);
  std::cout << "similarity " << std::inner_product(a.begin(), a.end(), b.begin(), 0.0F) << '\n';
}
