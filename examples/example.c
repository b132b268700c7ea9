/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a model a question and prints the answer as it comes: example MODEL QUESTION */
#include <banyan/banyan.h>
#include <stdio.h>

static int32_t print_text(void* user, int32_t token, const char* text, size_t text_bytes) {
  (void)token;
  fwrite(text, 1, text_bytes, (FILE*)user);
  return fflush((FILE*)user); /* not 0 would end the answer */
}

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: example MODEL QUESTION\n"), 2;
  banyan_model* model = NULL;
  int32_t* prompt = NULL;
  size_t n_prompt = 0;
  banyan_reply* reply = NULL;

  const banyan_message question = {"user", argv[2]};
  banyan_generate_options options;
  banyan_init_generate_options(&options, sizeof options);
  options.temperature = 0;
  options.on_token = print_text;
  options.user = stdout;

  banyan_error* error = banyan_load_model(argv[1], NULL, &model);
  if (!error) error = banyan_apply_chat_template(model, &question, 1, &prompt, &n_prompt);
  if (!error) error = banyan_generate(model, prompt, n_prompt, &options, &reply);
  if (error) fprintf(stderr, "%s\n", banyan_error_message(error));
  if (reply) printf("\n%zu tokens in %.0f ms\n", reply->n_tokens, reply->predicted_ms);

  const int status = error ? 1 : 0;
  banyan_free_error(error);
  banyan_free_reply(reply);
  banyan_free(prompt);
  banyan_free_model(model);
  return status;
}
